"""Video files, decoded in a stream through PyAV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av
import torch

from ...errors import InputError
from ...types import ClipInfo, FrameNote
from ..base import Reader
from ..planes import bit_depth, chroma_sampling, colour_tags, frame_to_rgb
from .container import codec_name, open_container, video_stream
from .deinterlace import can_deinterlace, deinterlaced
from .hdr import dynamic_hdr, static_hdr
from .seeking import FAR, Numbered, frames_near
from .stream_facts import (
    claimed_seconds,
    frames_before_cut,
    lacks_its_end,
    orientation,
    pixel_aspect,
)
from .time_stamps import time_stamps

log = logging.getLogger("dtg_restore")


class VideoReader(Reader):
    """Frame numbers are exact in every container: those of decoding it from the beginning."""

    def __init__(self, path: str, start: int = 0, stop: int | None = None):
        super().__init__(path, start, stop)
        self.first_number = start
        self._open()
        try:
            self._readable = frames_before_cut(self._stream, path)
            self._refuse_what_is_cut_off()
            self._times = time_stamps(path)
            decoded = self._decode(self._container.demux(self._stream))
            first = self._first(decoded)
            self._refuse_single_fields(first)
            self._first_time = first.time
            self._times = self._times.beginning_with(first.pts)
            self._num_turns, self._mirrored = orientation(first, path)
            self.info = self._describe(first)
            self._numbered = self._begin(first, decoded)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._container = open_container(self.path)
        try:
            self._stream = video_stream(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"

    def close(self) -> None:
        self._container.close()

    def time_of(self, index: int) -> Fraction:
        return self._times.span(index)[0]

    def _refuse_what_is_cut_off(self) -> None:
        intact = self._readable
        if intact is not None and (self.stop is None or self.stop > intact):
            advice = f"frames 0-{intact - 1} can still be read" if intact else "nothing is left"
            raise InputError(f"{self.path} is cut short: {advice}")

    def _first(self, decoded: Iterator[av.VideoFrame]) -> av.VideoFrame:
        try:
            return next(decoded)
        except StopIteration:
            raise InputError(f"{self.path} holds no frames that can be decoded") from None

    def _refuse_single_fields(self, first: av.VideoFrame) -> None:
        """HEVC has no other interlaced pictures than these."""
        if first.interlaced_frame and codec_name(self._stream) == "hevc":
            raise InputError(
                f"{self.path} holds each field as a picture of its own (interlaced HEVC), which is "
                "not supported: join them into frames first"
            )

    def _begin(self, first: av.VideoFrame, decoded: Iterator[av.VideoFrame]) -> Numbered:
        """Numbered frames, from the beginning or from a place near the range."""
        if self.start < FAR:
            return enumerate(chain((first,), decoded))
        near = frames_near(
            self.path, self._container, self._stream, self.start, first.pts, self._decode
        )
        if near is not None:
            return near
        self.close()  # it has been moved
        self._open()
        return enumerate(self._decode(self._container.demux(self._stream)))

    def _decode(self, packets: Iterator[av.Packet], number: int = 0) -> Iterator[av.VideoFrame]:
        """Every frame, the decoder's delayed ones included: the last packet flushes it."""
        try:
            for packet in packets:
                for frame in packet.decode():
                    yield frame
                    number += 1
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path} is damaged: frame {number} cannot be decoded ({error.strerror})"
            ) from None
        announced = self._times.num_frames
        if number < announced - max(2, announced // 20):
            log.warning("%s announces %d frames but holds %d", self.path, announced, number)

    def _frames(self) -> Iterator[torch.Tensor]:
        self._warn_of_the_file()
        centred = codec_name(self._stream) == "mjpeg"
        place = -1  # ahead of the number where frames are lost
        for number, frame in deinterlaced(self._of_one_size(self._numbered)):
            place = self._times.place(frame.pts, max(number, place + 1))
            if number >= self.start:
                self._note(number, FrameNote(number, *self._times.span(place)))
                yield self._turn(frame_to_rgb(frame, chroma_centred=centred))
            if number + 1 == self.stop:
                return

    def _of_one_size(self, numbered: Numbered) -> Numbered:
        """As they are, up to a change of size; troubles are told."""
        size = None
        for number, frame in numbered:
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise InputError(
                    f"{self.path}: frame {number} is {frame.width}x{frame.height}, "
                    f"the ones before are {size[0]}x{size[1]}"
                )
            if number >= self.start and (self.stop is None or number < self.stop):
                self._warn_of(frame, number)
            yield number, frame

    def _warn_of_the_file(self) -> None:
        times = self._times
        if times.trouble:
            log.warning("%s %s: they are made regular", self.path, times.trouble)
        gap = times.gap()
        if gap:
            log.warning("%s: frame %d lasts %.2f s, frames may be lost behind it", self.path, *gap)
        claimed = claimed_seconds(self._container, self._stream)
        held = float(sum(times.span(max(0, times.num_frames - 1))))
        # What a header announces is rounded, or of other streams, unless the end is known to lack.
        is_cut = lacks_its_end(self.path)
        missing = 0.5 / times.fps if is_cut else max(2.5 / times.fps, 0.05 * claimed)
        if self.stop is None and claimed - held > missing:
            log.warning(
                "%s is cut short: it announces %.1f s of video and holds %.1f s",
                *(self.path, claimed, held),
            )

    def _warn_of(self, frame: av.VideoFrame, number: int) -> None:
        """Each kind of trouble is reported once, at the first frame that has it."""
        drift = 0.0
        times = self._times
        told = times.trouble or not times.on_frames or times.time_base is not None
        if not told and frame.time is not None and self._first_time is not None:
            drift = (frame.time - self._first_time) * float(self.info.fps) - number
        lost = dynamic_hdr(frame)
        woven = "deinterlaced" if can_deinterlace(frame) else "treated as progressive"
        troubles = {
            "was damaged, and the decoder filled it in": frame.is_corrupt,
            f"is interlaced and is {woven}": frame.interlaced_frame,
            "is off the constant frame rate that is assumed": abs(drift) > 1.5,
            f"has {lost} metadata, which describe the original: they are dropped": bool(lost),
            "has an alpha channel: it is dropped": any(c.is_alpha for c in frame.format.components),
        }
        for trouble, present in troubles.items():
            if present:
                self._once(f"{self.path}: frame {number} {trouble}", trouble)

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
            fps=self._times.fps,
            num_frames=self._times.num_frames,
            bit_depth=bit_depth(first.format),
            colour=colour_tags(first),
            has_audio=bool(self._container.streams.audio),
            kind="video",
            pixel_aspect=1 / aspect if sideways else aspect,
            readable=self._readable,
            time_base=self._times.time_base,
            chroma=chroma_sampling(first.format),
            hdr=static_hdr(first),
        )
