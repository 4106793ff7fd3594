"""What every reader and writer has in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import isfinite
from types import TracebackType

import torch

from ..errors import BeyondEnd, ConfigError, EngineError, InputError
from ..types import ClipInfo

log = logging.getLogger("dtg_restore")


class Reader(ABC):
    """Frames `start .. stop - 1` of a clip, decoded while they are iterated, once.

    Attributes
    ----------
    info : facts of the clip, read from its first frame.
    first_number : number of the first frame that comes out, on the clip's own numbering: `start`
        for a video, the number in the file name for an image sequence.
    """

    info: ClipInfo
    first_number: int

    def __init__(self, path: str, start: int, stop: int | None):
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"frame range {start}..{stop} is empty; start must be below stop")
        self.path, self.start, self.stop = path, start, stop

    @abstractmethod
    def _frames(self) -> Iterator[torch.Tensor]:
        """Frames of the range; stops early where the clip ends."""

    @abstractmethod
    def close(self) -> None: ...

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
    """Takes frames in order.  What was written is committed by leaving `with` without an error."""

    def __init__(self, path: str, width: int, height: int):
        if width < 1 or height < 1:
            raise ConfigError(f"frame size {width}x{height} is not positive")
        self.path, self.width, self.height = path, width, height
        self.num_frames = 0

    @abstractmethod
    def _write(self, frame: torch.Tensor) -> None: ...

    @abstractmethod
    def commit(self) -> None:
        """Finish the file and give it its name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what is unfinished."""

    def write(self, frame: torch.Tensor) -> None:
        """Append RGB (3, height, width), any device and float dtype, clamped to [0, 1]."""
        if tuple(frame.shape) != (3, self.height, self.width):
            raise ConfigError(
                f"frame of shape {tuple(frame.shape)} given to a writer of "
                f"(3, {self.height}, {self.width})"
            )
        frame = frame.detach().to("cpu", torch.float32)
        if not all(map(isfinite, torch.aminmax(frame))):  # both are nan where any value is
            raise EngineError(f"frame {self.num_frames} of {self.path} holds NaN or infinity")
        self._write(frame)
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
