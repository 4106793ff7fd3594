"""What every reader and writer has in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import isfinite
from types import TracebackType

import torch

from ..errors import BeyondEnd, ConfigError, EngineError, InputError
from ..types import ClipInfo, FrameNote, Part

log = logging.getLogger("dtg_restore")


class Once:
    """Warns of each topic the first time alone; without a topic the message is it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, message: str, topic: str | None = None) -> None:
        topic = message if topic is None else topic
        if topic not in self._told:
            self._told.add(topic)
            log.warning("%s", message)


class Reader(ABC):
    """Frames `start .. stop - 1` of a clip, decoded while they are iterated, once.

    Attributes
    ----------
    info : facts of the clip, read from its first frame.
    first_number : number of the first frame that comes out, on the clip's own numbering: `start`
        for a video, the number in the file name for an image sequence.
    last_number : the same of the last frame; None where the range has no end.

    What else a frame has is a `FrameNote`, which waits here until the writer takes it: the models
    see colours alone.
    """

    info: ClipInfo
    first_number: int
    last_number: int | None

    def __init__(self, path: str, start: int, stop: int | None):
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"frame range {start}..{stop} is empty; start must be below stop")
        self.path, self.start, self.stop = path, start, stop
        self.last_number = None if stop is None else stop - 1
        self._once = Once()
        self._notes: dict[int, FrameNote] = {}  # filled and emptied in two threads, one each

    @abstractmethod
    def _frames(self) -> Iterator[torch.Tensor]:
        """Frames of the range; stops early where the clip ends."""

    @abstractmethod
    def close(self) -> None: ...

    def time_of(self, index: int) -> Fraction:
        """Seconds from the clip's first frame to frame `index`."""
        return index / self.info.fps

    def _note(self, index: int, note: FrameNote) -> None:
        """To be called before frame `index` is yielded."""
        self._notes[index] = note

    def take_note(self, index: int) -> FrameNote:
        """The note of frame `index`, 0-based on the clip; those before it are dropped."""
        for earlier in [i for i in list(self._notes) if i < index]:
            del self._notes[earlier]
        return self._notes.pop(index)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield RGB (3, H, W) float32 in [0, 1]; BeyondEnd if the range holds no frame."""
        count = 0
        for frame in self._frames():
            count += 1
            yield frame
        if count == 0:
            raise BeyondEnd(f"{self.path} ends before frame {self.start}")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Writer(ABC):
    """Takes frames in order, in parts that survive the process once they are ended.

    What was written is committed by leaving `with` without an error.

    Parameters
    ----------
    finished : parts that an earlier process has ended, from frame 0 on without a gap; writing goes
        on behind them.
    """

    def __init__(self, path: str, width: int, height: int, finished: Sequence[Part] = ()):
        if width < 1 or height < 1:
            raise ConfigError(f"frame size {width}x{height} is not positive")
        self.path, self.width, self.height = path, width, height
        self._once = Once()
        self.parts = list(finished)
        self.num_frames = self.parts[-1].stop if self.parts else 0

    @abstractmethod
    def _write(self, frame: torch.Tensor, note: FrameNote | None) -> None: ...

    @abstractmethod
    def _end_part(self) -> tuple[tuple[str, int], ...]:
        """Put the frames since the last part on the disk; `Part.files`."""

    @abstractmethod
    def commit(self) -> None:
        """Finish the file and give it its name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what is unfinished; parts that have been ended stay."""

    def end_part(self) -> Part | None:
        """Finish the frames since the last part; None where there are none.

        Where parts end is seen in the bytes of a video (each begins with a key frame), so the
        caller ends them at the same frames in every run.
        """
        start = self.parts[-1].stop if self.parts else 0
        if self.num_frames == start:
            return None
        self.parts.append(Part(start, self.num_frames, self._end_part()))
        return self.parts[-1]

    def write(self, frame: torch.Tensor, note: FrameNote | None = None) -> None:
        """Append RGB (3, height, width), any device and float dtype, clamped to [0, 1].

        `note` is what the source's frame has beside its colours, perhaps of another size.
        """
        if tuple(frame.shape) != (3, self.height, self.width):
            raise ConfigError(
                f"frame of shape {tuple(frame.shape)} given to a writer of "
                f"(3, {self.height}, {self.width})"
            )
        frame = frame.detach().to("cpu", torch.float32)
        if not all(map(isfinite, torch.aminmax(frame))):  # both are nan where any value is
            raise EngineError(f"frame {self.num_frames} of {self.path} holds NaN or infinity")
        self._write(frame, note)
        self.num_frames += 1

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
            return
        if self.num_frames == 0:
            self.abort()
            raise InputError(f"no frames were written to {self.path}")
        self.commit()
