"""Sequences of still pictures: one file a frame."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import torch

from ..errors import BeyondEnd, ConfigError, InputError
from ..types import ClipInfo, ColourTags, FrameNote, Part
from .atomic import AtomicFile, reason
from .base import Reader, Writer
from .colour import default_matrix
from .paths import list_sequence, output_pattern
from .planes import bit_depth, frame_to_rgb, rgb_to_frame

log = logging.getLogger("dtg_restore")

# Pictures carry no rate of their own.
DEFAULT_FPS = Fraction(24)
_PNG_FORMATS = {8: "rgb24", 16: "rgb48be"}


def read_picture(path: Path) -> av.VideoFrame:
    """Decode one picture; InputError if it is damaged."""
    try:
        # From memory: FFmpeg would take a % in a file name for a pattern.
        with av.open(io.BytesIO(path.read_bytes()), "r") as container:
            frame = next(container.decode(video=0), None)
    except (av.FFmpegError, ValueError, IndexError):
        frame = None
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from None
    if frame is None or frame.is_corrupt:
        raise InputError(f"{path} is not a readable picture")
    return frame


class ImageReader(Reader):
    """Pictures in the order of their numbers; `start` and `stop` count pictures from 0."""

    def __init__(self, path: str, start: int = 0, stop: int | None = None):
        super().__init__(path, start, stop)
        self._files = list_sequence(path)
        self._warn_of_gaps()
        if start >= len(self._files):
            raise BeyondEnd(f"{path} holds {len(self._files)} pictures, none from {start} on")
        self.first_number = self._files[start][0]
        self.info = self._describe(read_picture(self._files[0][1]))

    def close(self) -> None:
        pass

    def _frames(self) -> Iterator[torch.Tensor]:
        chosen = self._files[self.start : self.stop]
        for index, (number, file) in enumerate(chosen, self.start):
            picture = read_picture(file)
            if (picture.width, picture.height) != (self.info.width, self.info.height):
                raise InputError(
                    f"{file} is {picture.width}x{picture.height}, the first picture "
                    f"{self.info.width}x{self.info.height}"
                )
            self._note(index, FrameNote(number))
            centred = picture.format.name.startswith("yuvj")
            yield frame_to_rgb(picture, chroma_centred=centred)

    def _describe(self, first: av.VideoFrame) -> ClipInfo:
        return ClipInfo(
            path=self.path,
            width=first.width,
            height=first.height,
            fps=DEFAULT_FPS,
            num_frames=len(self._files),
            bit_depth=max(8, bit_depth(first.format)),
            colour=ColourTags(
                default_matrix(first.height),
                primaries=int(first.color_primaries),
                transfer=int(first.color_trc),
            ),
            kind="images",
        )

    def _warn_of_gaps(self) -> None:
        numbers = [number for number, _ in self._files]
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if missing > 0:
            log.warning("%s: %d numbers are missing between its pictures", self.path, missing)


class ImageWriter(Writer):
    """PNG files, each of them written atomically; numbers go up from `first_number`."""

    def __init__(
        self,
        path: str,
        *,
        width: int,
        height: int,
        colour: ColourTags,
        bit_depth: int,
        first_number: int,
        overwrite: bool,
        finished: Sequence[Part] = (),
    ):
        super().__init__(path, width, height, finished)
        self._pattern = output_pattern(path)
        self._pix_fmt = _PNG_FORMATS[8 if bit_depth <= 8 else 16]
        self._colour, self._overwrite, self._first = colour, overwrite, first_number
        if first_number < 0:
            raise ConfigError(f"first number {first_number} is negative")
        try:
            self._pattern.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self._pattern.folder}: {reason(error)}") from None
        # Fails now rather than after the first chunk.
        AtomicFile(self._pattern.file(first_number), overwrite).abort()
        self._codec = self._encoder()

    def _encoder(self) -> av.VideoCodecContext:
        codec = av.CodecContext.create("png", "w")
        codec.width, codec.height, codec.pix_fmt = self.width, self.height, self._pix_fmt
        codec.time_base = Fraction(1, 24)
        # Frame threads would hold pictures back.
        codec.thread_count = 1
        return codec

    def _write(self, frame: torch.Tensor, note: FrameNote | None) -> None:
        picture = rgb_to_frame(frame, self._pix_fmt, self._colour)
        picture.pts = self.num_frames
        packets = self._codec.encode(picture)
        file = AtomicFile(self._pattern.file(self._first + self.num_frames), self._overwrite)
        try:
            file.path.write_bytes(b"".join(bytes(packet) for packet in packets))
        except OSError as error:
            file.abort()
            raise InputError(f"cannot write {file.target}: {reason(error)}") from None
        except BaseException:  # a signal
            file.abort()
            raise
        file.commit()

    def _end_part(self) -> tuple[tuple[str, int], ...]:
        return ()

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        """Pictures that are complete stay."""
