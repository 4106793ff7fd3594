"""Videos that the package's own writer does not make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture(scope="session")
def encode() -> Callable[..., Path]:
    """Writes a scrolling texture with given time stamps, in units of 1/24000 s."""

    def make(
        path: Path,
        codec: str,
        stamps: Sequence[int],
        pix_fmt: str = "yuv420p",
        size: tuple[int, int] = (64, 48),
        muxer_options: dict[str, str] | None = None,
        **options: str,
    ) -> Path:
        width, height = size
        texture = np.random.default_rng(0).integers(0, 256, (height + 2 * len(stamps), width, 3))
        texture = texture.astype(np.uint8)
        with av.open(str(path), "w", container_options=muxer_options or {}) as container:
            stream = container.add_stream(codec, rate=24, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = Fraction(1, 24000)
            stream.codec_context.gop_size = 12
            for i, stamp in enumerate(stamps):
                pixels = np.ascontiguousarray(texture[2 * i : 2 * i + height])
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = stamp, Fraction(1, 24000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
