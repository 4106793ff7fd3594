"""The names and numbers of colour matrices; kernels/yuv.py holds the arithmetic.

swscale is not used for the conversion: from and to more than 8 bits it is biased by up to one
8-bit code value and its forward direction is off by up to four 10-bit ones, whatever its flags.
"""

from __future__ import annotations

import torch

from ...kernels.yuv import YuvCoding
from ..errors import InputError
from ..types import ColourTags

# (k_r, k_b) of the luma equation Y = k_r R + k_g G + k_b B; ITU-T H.273 table 4.
MATRICES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}

# Code points of H.273 "matrix coefficients" and the names used here.
_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
CODE_POINTS = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}
_UNSPECIFIED = (2, 3)
RGB_CODE_POINT = 0


def default_matrix(height: int) -> str:
    """Matrix of an untagged clip: BT.709 from 720 lines on, BT.601 below."""
    return "bt709" if height >= 720 else "bt601"


def matrix_name(code_point: int, height: int) -> str:
    """Name of the matrix with an H.273 code point; unspecified and RGB follow the height."""
    if code_point in _UNSPECIFIED or code_point == RGB_CODE_POINT:
        return default_matrix(height)
    if code_point not in _NAMES:
        raise InputError(
            f"colour matrix with code point {code_point} is not supported; "
            f"supported: {', '.join(MATRICES)}"
        )
    return _NAMES[code_point]


def coding(colour: ColourTags, bits: int, shifts: tuple[int, int]) -> YuvCoding:
    """What the conversions need to know, in numbers."""
    k_r, k_b = MATRICES[colour.matrix]
    return YuvCoding(k_r, k_b, colour.full_range, bits, shifts)


def round_to_code(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Nearest code value, kept in range; float32 stays exact up to 16 bits."""
    return values.round().clamp_(0, (1 << bits) - 1)
