"""How the frames of one video are encoded: the same for each of its parts and for the whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import av

from ..errors import ConfigError
from ..types import ColourTags
from .colour import CODE_POINTS, RGB_CODE_POINT
from .encoders import ENCODERS


@dataclass(frozen=True)
class Encoding:
    """Codec, frames and settings; `options` are FFmpeg's.

    Encoders count frames and never see times: those are the container's alone, so that variable
    rates and rates above what an encoder takes need no care here.
    """

    codec: str
    width: int
    height: int
    fps: Fraction
    pix_fmt: str
    colour: ColourTags
    pixel_aspect: Fraction = Fraction(1)
    options: dict[str, str] = field(default_factory=dict)

    def open(self) -> av.VideoCodecContext:
        """A new encoder; ConfigError where it refuses the frames."""
        name = ENCODERS[self.codec].ffmpeg_name
        context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
        context.flags |= av.codec.context.Flags.global_header
        return self._opened(context)

    def add_to(self, container: av.container.OutputContainer) -> av.VideoStream:
        """A stream for packets that encoders of this kind have made."""
        name = ENCODERS[self.codec].ffmpeg_name
        stream = cast(av.VideoStream, container.add_stream(name, rate=self.fps))
        tag = ENCODERS[self.codec].tag
        if tag and container.format.name in ("mp4", "mov"):
            stream.codec_context.codec_tag = tag
        self._opened(stream.codec_context)
        return stream

    def _opened(self, context: av.VideoCodecContext) -> av.VideoCodecContext:
        encoder = ENCODERS[self.codec]
        for name, value in encoder.environment.items():
            os.environ.setdefault(name, value)
        context.options = dict(self.options)
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.framerate = min(self.fps, encoder.max_fps or self.fps)
        context.time_base = 1 / context.framerate
        context.sample_aspect_ratio = self.pixel_aspect
        # Output must not depend on the day or on a random number: no time stamps, no unique ids.
        context.flags |= av.codec.context.Flags.bitexact
        is_rgb = not self.pix_fmt.startswith("yuv")
        context.colorspace = RGB_CODE_POINT if is_rgb else CODE_POINTS[self.colour.matrix]
        context.color_range = 2 if is_rgb or self.colour.full_range else 1
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        try:
            context.open()
        except (av.FFmpegError, OSError, ValueError):
            raise ConfigError(
                f"{self.codec} cannot encode {self.width}x{self.height} {self.pix_fmt}"
            ) from None
        return context
