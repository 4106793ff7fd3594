"""How the frames of one video are encoded: the same for each of its parts and for the whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction

import av

from ...errors import ConfigError
from ...types import HDR, ColourTags
from ..colour import CODE_POINTS, RGB_CODE_POINT
from .encoders import ENCODERS
from .stream_template import open_template


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
    hdr: HDR | None = None

    def open(self) -> av.VideoCodecContext:
        """A new encoder; ConfigError where it refuses the frames."""
        encoder = ENCODERS[self.codec]
        for name, value in encoder.environment.items():
            os.environ.setdefault(name, value)
        context = av.CodecContext.create(encoder.ffmpeg_name, "w")
        assert isinstance(context, av.VideoCodecContext)
        self._describe(context)
        context.options = dict(self.options)
        context.framerate = min(self.fps, Fraction(encoder.max_fps or self.fps))
        context.time_base = 1 / context.framerate
        # Output must not depend on the day or on a random number: no time stamps, no unique ids.
        context.flags |= av.codec.context.Flags.bitexact | av.codec.context.Flags.global_header
        try:
            context.open()
        except (av.FFmpegError, OSError, ValueError):
            raise ConfigError(
                f"{self.codec} cannot encode {self.width}x{self.height} {self.pix_fmt}"
            ) from None
        return context

    def add_to(self, container: av.container.OutputContainer) -> av.VideoStream:
        """A stream for packets that encoders of this kind have made."""
        made_by = self.open()
        with open_template(self.codec, self.hdr) as template:
            stream = container.add_stream_from_template(template.streams.video[0], opaque=True)
        context = stream.codec_context
        self._describe(context)
        context.framerate = self.fps
        context.extradata, context.level = made_by.extradata, made_by.level
        if made_by.profile:
            context.profile = made_by.profile
        is_quicktime = container.format.name in ("mp4", "mov")
        context.codec_tag = (is_quicktime and ENCODERS[self.codec].tag) or made_by.codec_tag
        return stream

    def _describe(self, context: av.VideoCodecContext) -> None:
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.sample_aspect_ratio = self.pixel_aspect
        is_rgb = not self.pix_fmt.startswith("yuv")
        context.colorspace = RGB_CODE_POINT if is_rgb else CODE_POINTS[self.colour.matrix]
        context.color_range = 2 if is_rgb or self.colour.full_range else 1
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
