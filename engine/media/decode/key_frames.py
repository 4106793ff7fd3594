"""Key frames from which on a decoder gives the frames that it gives from the beginning."""

from __future__ import annotations

import re
from collections.abc import Iterator

import av

from .container import codec_name, tells_order_alone
from .h264 import only_frames

# Every frame for itself, or a key frame resets all that the decoder remembers.
_RESETTING = {
    *("prores", "dnxhd", "cfhd", "mjpeg", "jpeg2000", "png", "rawvideo", "v210", "ffv1"),
    *("huffyuv", "ffvhuff", "utvideo", "magicyuv", "vp9", "av1"),
}
_START_CODE = re.compile(b"\0\0\1")


def is_exact_start(stream: av.VideoStream, packet: av.Packet) -> bool:
    """Whether the frames shown from this key frame on need nothing that precedes it.

    Left out are, among others, the I frames of an open GOP and the recovery points of intra
    refresh in H.264: the lists of references of later frames depend on what was decoded before.
    In HEVC each frame names its references, and those shown after a CRA frame may not reach back.
    """
    name = codec_name(stream)
    if name in _RESETTING:
        return True
    kinds = {"h264": (range(1, 6), {5}), "hevc": (range(32), set(range(16, 22)))}
    if name not in kinds or tells_order_alone(stream.container):  # no times to number by
        return False
    if name == "h264" and not only_frames(stream.codec_context.extradata):
        return False  # a field may have a packet of its own
    of_pictures, exact = kinds[name]
    headers = _unit_headers(bytes(packet), stream.codec_context.extradata, name)
    units = (h & 31 if name == "h264" else h >> 1 & 63 for h in headers)
    return next((unit in exact for unit in units if unit in of_pictures), False)


def _unit_headers(packet: bytes, extradata: bytes | None, name: str) -> Iterator[int]:
    """The first byte of every NAL unit."""
    if not extradata or extradata[0] != 1:  # with start codes
        yield from (packet[m.end()] for m in _START_CODE.finditer(packet) if m.end() < len(packet))
        return
    width = (extradata[4 if name == "h264" else 21] & 3) + 1
    at = 0
    while at + width < len(packet):
        yield packet[at + width]
        at += width + int.from_bytes(packet[at : at + width], "big")
