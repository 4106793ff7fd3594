"""A stream that carries metadata for which PyAV has no attribute.

PyAV gives an output stream HDR metadata only by copying a stream that was read.  So one is made: a
Matroska header with a track of the codec, without frames.
"""

from __future__ import annotations

import io
import struct

import av

from ...types import HDR

CODEC_IDS = {
    "h264": "V_MPEG4/ISO/AVC",
    "hevc": "V_MPEGH/ISO/HEVC",
    "vp9": "V_VP9",
    "av1": "V_AV1",
    "prores": "V_PRORES",
    "prores4444": "V_PRORES",
    "ffv1": "V_FFV1",
}

# Identifiers of RFC 8794 and RFC 9559.
_EBML, _DOC_TYPE = 0x1A45DFA3, 0x4282
_SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_TIMESTAMP_SCALE, _TIMESTAMP = 0x2AD7B1, 0xE7
_TRACK, _NUMBER, _UID, _TYPE, _CODEC_ID = 0xAE, 0xD7, 0x73C5, 0x83, 0x86
_VIDEO, _WIDTH, _HEIGHT = 0xE0, 0xB0, 0xBA
_COLOUR, _MAX_CLL, _MAX_FALL, _MASTERING = 0x55B0, 0x55BC, 0x55BD, 0x55D0
_PRIMARIES = range(0x55D1, 0x55D9)  # x and y of red, green, blue, white
_MOST_LUMINANCE, _LEAST_LUMINANCE = 0x55D9, 0x55DA


def open_template(codec: str, hdr: HDR | None) -> av.container.InputContainer:
    """A container whose only stream is a video of `codec` with the metadata `hdr`."""
    return av.open(io.BytesIO(_document(CODEC_IDS[codec], hdr)), "r", format="matroska")


def _document(codec_id: str, hdr: HDR | None) -> bytes:
    size = _whole(_WIDTH, 16) + _whole(_HEIGHT, 16)  # replaced, but must be there
    numbers = _whole(_NUMBER, 1) + _whole(_UID, 1) + _whole(_TYPE, 1)
    track = numbers + _text(_CODEC_ID, codec_id) + _element(_VIDEO, size + _colour(hdr))
    segment = (
        _element(_INFO, _whole(_TIMESTAMP_SCALE, 1_000_000))
        + _element(_TRACKS, _element(_TRACK, track))
        + _element(_CLUSTER, _whole(_TIMESTAMP, 0))
    )
    return _element(_EBML, _text(_DOC_TYPE, "matroska")) + _element(_SEGMENT, segment)


def _colour(hdr: HDR | None) -> bytes:
    if hdr is None:
        return b""
    light = mastering = b""
    if hdr.light_level is not None:
        light = _whole(_MAX_CLL, hdr.light_level[0]) + _whole(_MAX_FALL, hdr.light_level[1])
    if hdr.primaries is not None:
        values = (value for point in hdr.primaries for value in point)
        mastering += b"".join(map(_real, _PRIMARIES, map(float, values)))
    if hdr.luminance is not None:
        least, most = map(float, hdr.luminance)
        mastering += _real(_MOST_LUMINANCE, most) + _real(_LEAST_LUMINANCE, least)
    return _element(_COLOUR, light + _element(_MASTERING, mastering))


def _element(identifier: int, content: bytes) -> bytes:
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + struct.pack(">Q", 1 << 56 | len(content)) + content


def _whole(identifier: int, value: int) -> bytes:
    return _element(identifier, struct.pack(">Q", value))


def _real(identifier: int, value: float) -> bytes:
    return _element(identifier, struct.pack(">d", value))


def _text(identifier: int, value: str) -> bytes:
    return _element(identifier, value.encode())
