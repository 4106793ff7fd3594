"""Metadata of HDR clips in the encoders' words."""

from __future__ import annotations

from fractions import Fraction

from ...types import HDR

# Steps of SMPTE ST 2086: of a coordinate, and of a luminance in cd/m^2.
_COORDINATE, _LUMINANCE = Fraction(1, 50000), Fraction(1, 10000)


def hdr_settings(hdr: HDR, codec: str) -> str:
    """Settings of x264, x265 or SVT-AV1 that store `hdr` in the stream, between colons."""
    settings = []
    if hdr.primaries is not None and hdr.luminance is not None:
        name = "master-display" if codec == "hevc" else "mastering-display"
        settings.append(f"{name}={_display(hdr, in_steps=codec != 'av1')}")
    if hdr.light_level is not None:
        name = {"h264": "cll", "hevc": "max-cll", "av1": "content-light"}[codec]
        settings.append(f"{name}={hdr.light_level[0]},{hdr.light_level[1]}")
    return ":".join(settings)


def _display(hdr: HDR, in_steps: bool) -> str:
    assert hdr.primaries is not None and hdr.luminance is not None
    red, green, blue, white = hdr.primaries
    points = (("G", green, _COORDINATE), ("B", blue, _COORDINATE), ("R", red, _COORDINATE))
    least, greatest = hdr.luminance
    return "".join(
        f"{name}({','.join(_number(value, step, in_steps) for value in pair)})"
        for name, pair, step in (
            *points,
            ("WP", white, _COORDINATE),
            ("L", (greatest, least), _LUMINANCE),
        )
    )


def _number(value: Fraction, step: Fraction, in_steps: bool) -> str:
    return str(round(value / step)) if in_steps else f"{float(value):.10g}"
