"""Video files, encoded in a stream through PyAV."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import torch

from ..errors import ConfigError, InputError
from ..types import ColourTags, FrameNote, Part
from .atomic import AtomicFile, reason
from .base import Writer
from .cargo import Span, survey
from .carry import StreamCopy
from .colour import CODE_POINTS, RGB_CODE_POINT
from .encoders import ENCODERS, encoder_options, muxer_for, pixel_format
from .planes import rgb_to_frame


class VideoWriter(Writer):
    """One video stream and, where asked for, what is carried over from the source."""

    def __init__(
        self,
        path: str,
        *,
        width: int,
        height: int,
        fps: Fraction,
        colour: ColourTags,
        codec: str,
        crf: int | None,
        bit_depth: int,
        pixel_aspect: Fraction,
        carry_from: str | None,
        carry_range: Span | None,
        overwrite: bool,
        finished: Sequence[Part] = (),
    ):
        super().__init__(path, width, height, finished)
        self._muxer = muxer_for(path, codec)
        self._codec, self._options = codec, encoder_options(codec, crf)
        self._pix_fmt = pixel_format(codec, width, height, bit_depth)
        self._fps, self._pixel_aspect = Fraction(fps), pixel_aspect
        full_range = colour.full_range and ENCODERS[codec].full_range
        self._colour = replace(colour, full_range=full_range)
        self._carried: StreamCopy | None = None
        self._file = AtomicFile(path, overwrite)
        try:
            self._open()
            if carry_from is not None:
                cargo = survey(carry_from, self._muxer, carry_range or (0, None))
                self._carried = StreamCopy(cargo, self._container)
            self._container.start_encoding()
        except BaseException:
            self.abort()
            raise

    def _open(self) -> None:
        encoder = ENCODERS[self._codec]
        for name, value in encoder.environment.items():
            os.environ.setdefault(name, value)
        # Output must not depend on the day or on a random number: no time stamps, no unique ids.
        self._container = av.open(
            f"file:{self._file.path}",
            "w",
            format=self._muxer,
            container_options={"fflags": "+bitexact", **_muxer_options(self._muxer)},
        )
        stream = cast(
            av.VideoStream,
            self._container.add_stream(encoder.ffmpeg_name, rate=self._fps, options=self._options),
        )
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, self._pix_fmt
        context = stream.codec_context
        context.time_base = 1 / self._fps
        context.sample_aspect_ratio = self._pixel_aspect
        context.flags |= av.codec.context.Flags.bitexact
        if encoder.tag and self._muxer in ("mp4", "mov"):
            context.codec_tag = encoder.tag
        _tag(context, self._pix_fmt, self._colour)
        self._stream = stream
        try:
            context.open()
        except (av.FFmpegError, OSError, ValueError):
            raise ConfigError(
                f"{self._codec} cannot encode {self.width}x{self.height} {self._pix_fmt}"
            ) from None

    def _write(self, frame: torch.Tensor, note: FrameNote | None) -> None:
        picture = rgb_to_frame(frame, self._pix_fmt, self._colour)
        picture.pts, picture.time_base = self.num_frames, 1 / self._fps
        with self._system_errors():
            if self._carried:
                self._carried.advance(float(self.num_frames / self._fps))
            self._container.mux(self._stream.encode(picture))

    @contextlib.contextmanager
    def _system_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:  # a full disk and the like
            raise InputError(f"cannot write {self.path}: {reason(error)}") from None

    def _end_part(self) -> tuple[tuple[str, int], ...]:
        return ()

    def commit(self) -> None:
        try:
            with self._system_errors():
                self._container.mux(self._stream.encode(None))
                if self._carried:
                    self._carried.advance()
                self._close()
        except BaseException:
            self.abort()
            raise
        self._file.commit()

    def _close(self) -> None:
        if self._carried:
            self._carried.close()
        self._container.close()

    def abort(self) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError, av.FFmpegError):
            self._close()
        self._file.abort()


def _muxer_options(muxer: str) -> dict[str, str]:
    return {"movflags": "+faststart"} if muxer in ("mp4", "mov") else {}


def _tag(context: av.VideoCodecContext, pix_fmt: str, colour: ColourTags) -> None:
    is_rgb = not pix_fmt.startswith("yuv")
    context.colorspace = RGB_CODE_POINT if is_rgb else CODE_POINTS[colour.matrix]
    context.color_range = 2 if is_rgb or colour.full_range else 1
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
