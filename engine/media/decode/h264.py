"""The parameter set of H.264 that tells whether a picture may be one field."""

from __future__ import annotations

import re

# Profiles whose parameter set tells the sampling of chroma and the depth (ITU-T H.264, 7.3.2.1.1).
_HIGH = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


def only_frames(extradata: bytes | None) -> bool:
    """Whether every picture is a whole frame: `frame_mbs_only_flag`; False where unsure.

    `extradata` is an avcC record, or units behind start codes.
    """
    unit = _parameter_set(extradata or b"")
    try:
        return bool(unit) and _frame_mbs_only(_Bits(unit.replace(b"\0\0\3", b"\0\0")))
    except IndexError:  # it ends too early
        return False


def _parameter_set(extradata: bytes) -> bytes:
    """The first sequence parameter set, without the byte that says so."""
    if extradata[:1] == b"\1":
        return extradata[9 : 8 + int.from_bytes(extradata[6:8], "big")]
    found = re.search(
        rb"(?s)\x00\x00\x01[\x07\x27\x47\x67](.*?)(?=\x00\x00[\x00\x01]|\Z)", extradata
    )
    return found[1] if found else b""


class _Bits:
    def __init__(self, unit: bytes):
        self._unit, self._at = unit, 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._unit[self._at >> 3] >> (7 - self._at & 7) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        """Exponential-Golomb code; the signed ones are as long."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def _frame_mbs_only(bits: _Bits) -> bool:
    profile = bits.read(8)
    bits.read(16)  # constraints, level
    bits.golomb()  # number of the set
    if profile in _HIGH:
        if bits.golomb() == 3:  # 4:4:4
            bits.read(1)
        bits.golomb(), bits.golomb()  # depths
        bits.read(1)
        if bits.read(1):  # lists of scaling factors follow, which are not parsed
            return False
    bits.golomb()  # length of frame numbers
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1)
        bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # references
    bits.read(1)
    bits.golomb(), bits.golomb()  # size
    return bool(bits.read(1))
