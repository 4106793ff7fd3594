"""Video files, decoded in a stream through PyAV."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import chain

import av
import torch

from ..errors import InputError
from ..types import ClipInfo, FrameNote
from .base import Reader
from .planes import bit_depth, colour_tags, frame_to_rgb
from .stream_facts import (
    claimed_frames,
    frame_rate,
    frames_before_cut,
    is_cover,
    orientation,
    pixel_aspect,
)

log = logging.getLogger("dtg_restore")

# Demuxers that turn any text into pictures.
_NOT_VIDEO = {"tty", "ansi"}


def open_container(path: str) -> av.container.InputContainer:
    """Open a local file, and nothing that it may refer to over a network.

    Raises
    ------
    InputError : missing, not readable, empty, or in no known format.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path} is empty")
    try:
        # Tags are often in another encoding than they should be.
        container = av.open(
            "file:" + path, options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except (av.FFmpegError, OSError, ValueError):
        raise InputError(f"{path} is not a readable video: unknown format or damaged") from None
    if container.format.name in _NOT_VIDEO:
        container.close()
        raise InputError(f"{path} is not a video")
    return container


class VideoReader(Reader):
    """Decodes from the beginning, so that frame numbers are exact in every container."""

    def __init__(self, path: str, start: int = 0, stop: int | None = None):
        super().__init__(path, start, stop)
        self.first_number = start
        self._container = open_container(path)
        try:
            self._stream = _video_stream(self._container, path)
            self._readable = frames_before_cut(self._stream, path)
            self._refuse_what_is_cut_off()
            self._decoded = self._decode()
            first = self._first()
            self._num_turns, self._mirrored = orientation(first, path)
            self.info = self._describe(first)
        except BaseException:
            self._container.close()
            raise
        self._decoded = chain((first,), self._decoded)
        self._first_time: float | None = first.time
        self._warned: set[str] = set()

    def close(self) -> None:
        self._container.close()

    def _refuse_what_is_cut_off(self) -> None:
        intact = self._readable
        if intact is not None and (self.stop is None or self.stop > intact):
            advice = f"frames 0-{intact - 1} can still be read" if intact else "nothing is left"
            raise InputError(f"{self.path} is cut short: {advice}")

    def _first(self) -> av.VideoFrame:
        try:
            return next(self._decoded)
        except StopIteration:
            raise InputError(f"{self.path} holds no frames that can be decoded") from None

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame, the decoder's delayed ones included; damage is an error or a warning."""
        count = 0
        packets = self._container.demux(self._stream)  # ends with the packet that flushes
        try:
            for packet in packets:
                for frame in packet.decode():
                    yield frame
                    count += 1
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path} is damaged: frame {count} cannot be decoded ({error.strerror})"
            ) from None
        claimed = self.info.num_frames if count else None
        # Durations are rounded; a header's count is often off by the frames of an edit list.
        if claimed and count < claimed - max(2, claimed // 20):
            log.warning("%s announces %d frames but holds %d", self.path, claimed, count)

    def _frames(self) -> Iterator[torch.Tensor]:
        size = None
        centred = self._stream.codec_context.name == "mjpeg"
        for number, frame in enumerate(self._decoded):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise InputError(
                    f"{self.path}: frame {number} is {frame.width}x{frame.height}, "
                    f"the ones before are {size[0]}x{size[1]}"
                )
            if number >= self.start:
                self._warn_of(frame, number)
                self._note(number, FrameNote(number))
                yield self._turn(frame_to_rgb(frame, chroma_centred=centred))
            if number + 1 == self.stop:
                return

    def _warn_of(self, frame: av.VideoFrame, number: int) -> None:
        """Each kind of trouble is reported once, at the first frame that has it."""
        drift = 0.0
        if frame.time is not None and self._first_time is not None:
            drift = (frame.time - self._first_time) * float(self.info.fps) - number
        troubles = {
            "was damaged, and the decoder filled it in": frame.is_corrupt,
            "is interlaced and is treated as progressive": frame.interlaced_frame,
            "is off the constant frame rate that is assumed": abs(drift) > 1.5,
        }
        for trouble, present in troubles.items():
            if present and trouble not in self._warned:
                self._warned.add(trouble)
                log.warning("%s: frame %d %s", self.path, number, trouble)

    def _turn(self, rgb: torch.Tensor) -> torch.Tensor:
        if self._mirrored:
            rgb = rgb.flip(-1)
        return rgb.rot90(self._num_turns, (-2, -1)).contiguous()

    def _describe(self, first: av.VideoFrame) -> ClipInfo:
        sideways = self._num_turns % 2 == 1
        width, height = first.width, first.height
        aspect = pixel_aspect(self._stream)
        return ClipInfo(
            path=self.path,
            width=height if sideways else width,
            height=width if sideways else height,
            fps=frame_rate(self._stream),
            num_frames=claimed_frames(self._container, self._stream),
            bit_depth=bit_depth(first.format),
            colour=colour_tags(first),
            has_audio=bool(self._container.streams.audio),
            kind="video",
            pixel_aspect=1 / aspect if sideways else aspect,
            readable=self._readable,
        )


def _video_stream(container: av.container.InputContainer, path: str) -> av.VideoStream:
    streams = [s for s in container.streams.video if not is_cover(s)]
    if not streams:
        raise InputError(f"{path} holds no video")
    stream = streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: its video codec is not known")
    stream.thread_type = "AUTO"
    return stream
