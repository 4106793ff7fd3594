"""Metadata of HDR video, from the side data of a decoded frame."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
from av.sidedata.sidedata import Type as SideDataType

from ...types import HDR

# Given for every frame or scene; they describe the pictures as they were before restoration.
_DYNAMIC = {
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid",
    SideDataType.DOVI_METADATA: "Dolby Vision",
    SideDataType.DOVI_RPU_BUFFER: "Dolby Vision",
}


def static_hdr(frame: av.VideoFrame) -> HDR | None:
    """Mastering display and content light level; None where the frame has neither."""
    mastering = _bytes(frame, SideDataType.MASTERING_DISPLAY_METADATA)
    light = _bytes(frame, SideDataType.CONTENT_LIGHT_LEVEL)
    primaries = luminance = light_level = None
    if mastering is not None:
        # AVMasteringDisplayMetadata: red, green, blue, white, luminance, two flags.
        *numbers, has_primaries, has_luminance = struct.unpack_from("=22i", mastering)
        values = [Fraction(n, d or 1) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
        if has_primaries:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        if has_luminance:
            luminance = (values[8], values[9])
    if light is not None:
        light_level = struct.unpack_from("=2I", light)
    if primaries is None and luminance is None and light_level is None:
        return None
    return HDR(primaries, luminance, light_level)


def dynamic_hdr(frame: av.VideoFrame) -> str | None:
    """Name of the dynamic metadata that a frame has."""
    return next((name for kind, name in _DYNAMIC.items() if _bytes(frame, kind)), None)


def _bytes(frame: av.VideoFrame, kind: SideDataType) -> bytes | None:
    data = frame.side_data.get(kind)  # type: ignore[call-overload]
    return None if data is None else bytes(data)
