"""YUV <-> RGB in floating point: matrix, range and chroma position, rounding once at the end.

swscale is not used for the conversion: from and to more than 8 bits it is biased by up to one
8-bit code value and its forward direction is off by up to four 10-bit ones, whatever its flags.
"""

from __future__ import annotations

import torch

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


def _code_scale(full_range: bool, bits: int) -> tuple[float, float, float, float]:
    """(luma gain, luma offset, chroma gain, chroma offset) in code values."""
    middle = float(1 << (bits - 1))
    if full_range:
        peak = float((1 << bits) - 1)
        return peak, 0.0, peak, middle
    unit = float(1 << (bits - 8))
    return 219 * unit, 16 * unit, 224 * unit, middle


def yuv_to_rgb(
    y: torch.Tensor, cb: torch.Tensor, cr: torch.Tensor, colour: ColourTags, bits: int
) -> torch.Tensor:
    """Code values (H, W) float32, chroma at full size, to RGB (3, H, W) clamped to [0, 1]."""
    k_r, k_b = MATRICES[colour.matrix]
    k_g = 1 - k_r - k_b
    gain, offset, chroma_gain, middle = _code_scale(colour.full_range, bits)
    y = (y - offset) / gain
    cb = (cb - middle) / chroma_gain
    cr = (cr - middle) / chroma_gain
    red = y + 2 * (1 - k_r) * cr
    blue = y + 2 * (1 - k_b) * cb
    green = y - (2 * k_b * (1 - k_b) / k_g) * cb - (2 * k_r * (1 - k_r) / k_g) * cr
    return torch.stack((red, green, blue)).clamp_(0, 1)


def rgb_to_yuv(
    rgb: torch.Tensor, colour: ColourTags, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """RGB (3, H, W), clamped to [0, 1], to unrounded code values y, cb, cr (H, W) float32."""
    k_r, k_b = MATRICES[colour.matrix]
    gain, offset, chroma_gain, middle = _code_scale(colour.full_range, bits)
    red, green, blue = rgb.clamp(0, 1)
    y = k_r * red + (1 - k_r - k_b) * green + k_b * blue
    cb = (blue - y) * (chroma_gain / (2 * (1 - k_b))) + middle
    cr = (red - y) * (chroma_gain / (2 * (1 - k_r))) + middle
    return y * gain + offset, cb, cr


def round_to_code(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Nearest code value, kept in range; float32 stays exact up to 16 bits."""
    return values.round().clamp_(0, (1 << bits) - 1)


def upsample_chroma(
    plane: torch.Tensor, height: int, width: int, shifts: tuple[int, int], centred: bool
) -> torch.Tensor:
    """Chroma plane to (height, width), linearly; `shifts` = log2 of the (x, y) subsampling.

    Vertically a chroma sample lies between two rows.  Horizontally it lies on the left column
    (MPEG), or between two columns where `centred` (JPEG).
    """
    for _ in range(shifts[1]):
        plane = _double_centred(plane)
    plane = plane[:height].T
    for _ in range(shifts[0]):
        plane = _double_centred(plane) if centred else _double_cosited(plane)
    return plane[:width].T


def downsample_chroma(plane: torch.Tensor, shifts: tuple[int, int]) -> torch.Tensor:
    """The inverse of `upsample_chroma` for the left position; odd sizes round up."""
    for _ in range(shifts[1]):
        plane = _halve_centred(plane)
    plane = plane.T
    for _ in range(shifts[0]):
        plane = _halve_cosited(plane)
    return plane.T


def _double_cosited(x: torch.Tensor) -> torch.Tensor:
    following = torch.cat((x[1:], x[-1:]))
    return torch.stack((x, (x + following) / 2), dim=1).flatten(0, 1)


def _double_centred(x: torch.Tensor) -> torch.Tensor:
    before, following = torch.cat((x[:1], x[:-1])), torch.cat((x[1:], x[-1:]))
    return torch.stack(((before + 3 * x) / 4, (3 * x + following) / 4), dim=1).flatten(0, 1)


def _halve_centred(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] % 2:
        x = torch.cat((x, x[-1:]))
    return (x[0::2] + x[1::2]) / 2


def _halve_cosited(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] % 2:
        x = torch.cat((x, x[-1:]))
    before = torch.cat((x[:1], x[1:-1:2]))
    return (before + 2 * x[0::2] + x[1::2]) / 4
