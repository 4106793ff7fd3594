"""What the two conversions between YUV and RGB have in common: coding, chroma, cases.

A plane is (H, W), of uint8 for 8 bits and of uint16 above, as it lies in a decoded frame: rows may
be farther apart than they are long.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.uint8, torch.uint16)
Shifts = tuple[int, int]
Planes = tuple[Tensor, Tensor, Tensor]


class ToRgb(NamedTuple):
    """Code values to RGB: of luma (y - y_offset) * y_scale, of chroma less `middle`."""

    y_offset: float
    y_scale: float
    middle: float
    red_cr: float
    green_cb: float
    green_cr: float
    blue_cb: float


class ToYuv(NamedTuple):
    """RGB to code values, of which `peak` is the largest."""

    k_r: float
    k_g: float
    k_b: float
    y_gain: float
    y_offset: float
    cb_gain: float
    cr_gain: float
    middle: float
    peak: float


class YuvCoding(NamedTuple):
    """How the samples of a picture relate to its gamma-encoded RGB.

    Parameters
    ----------
    k_r, k_b : weights of red and blue in the luma equation Y = k_r R + k_g G + k_b B
    full_range : black and white are the ends of the scale, rather than 16 and 235 of 8 bits
    bits : of a sample, 8 .. 16
    shifts : log2 of the (x, y) subsampling of chroma: (1, 1) is 4:2:0, (1, 0) is 4:2:2
    """

    k_r: float
    k_b: float
    full_range: bool
    bits: int
    shifts: Shifts

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.bits == 8 else torch.uint16

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a chroma plane; odd sizes round up."""
        return -(-height >> self.shifts[1]), -(-width >> self.shifts[0])

    def to_rgb(self) -> ToRgb:
        gain, offset, chroma_gain, middle = self._scale()
        red, blue = 2 * (1 - self.k_r) / chroma_gain, 2 * (1 - self.k_b) / chroma_gain
        k_g = 1 - self.k_r - self.k_b
        green_cb, green_cr = self.k_b * blue / k_g, self.k_r * red / k_g
        return ToRgb(offset, 1 / gain, middle, red, green_cb, green_cr, blue)

    def to_yuv(self) -> ToYuv:
        gain, offset, chroma_gain, middle = self._scale()
        cb_gain, cr_gain = chroma_gain / (2 * (1 - self.k_b)), chroma_gain / (2 * (1 - self.k_r))
        k_g = 1 - self.k_r - self.k_b
        peak = float((1 << self.bits) - 1)
        return ToYuv(self.k_r, k_g, self.k_b, gain, offset, cb_gain, cr_gain, middle, peak)

    def _scale(self) -> tuple[float, float, float, float]:
        """(luma gain, luma offset, chroma gain, chroma middle) in code values."""
        middle = float(1 << (self.bits - 1))
        if self.full_range:
            peak = float((1 << self.bits) - 1)
            return peak, 0.0, peak, middle
        unit = float(1 << (self.bits - 8))
        return 219 * unit, 16 * unit, 224 * unit, middle


def check_coding(coding: YuvCoding) -> None:
    if not 8 <= coding.bits <= 16:
        raise ValueError(f"bits must be 8 to 16, got {coding.bits}")
    if any(shift not in (0, 1, 2) for shift in coding.shifts):
        raise ValueError(f"shifts must be 0, 1 or 2 each, got {coding.shifts}")


def shift_reasons(shifts: Shifts) -> list[str]:
    """4:1:1 and 4:1:0 are left to the reference."""
    return [f"chroma is subsampled by more than 2: shifts {shifts}"] if max(shifts) > 1 else []


def empty_planes(rgb: Tensor, coding: YuvCoding) -> Planes:
    """New memory for the planes of a picture, on its device."""
    height, width = rgb.shape[1:]
    size = coding.chroma_size(height, width)
    y, cb, cr = (
        torch.empty(shape, dtype=coding.dtype, device=rgb.device)
        for shape in ((height, width), size, size)
    )
    return y, cb, cr


def upsample_chroma(
    plane: Tensor, height: int, width: int, shifts: Shifts, centred: bool
) -> Tensor:
    """Chroma plane, float32, to (height, width), linearly; exact up to 16 bits.

    Vertically a chroma sample lies between two rows.  Horizontally it lies on the left column
    (MPEG), or between two columns where `centred` (JPEG).
    """
    for _ in range(shifts[1]):
        plane = _double_centred(plane)
    plane = plane[:height].T
    for _ in range(shifts[0]):
        plane = _double_centred(plane) if centred else _double_cosited(plane)
    return plane[:width].T


def downsample_chroma(plane: Tensor, shifts: Shifts) -> Tensor:
    """The inverse of `upsample_chroma` for the left position; odd sizes round up."""
    for _ in range(shifts[1]):
        plane = _halve_centred(plane)
    plane = plane.T
    for _ in range(shifts[0]):
        plane = _halve_cosited(plane)
    return plane.T


def _double_cosited(x: Tensor) -> Tensor:
    following = torch.cat((x[1:], x[-1:]))
    return torch.stack((x, (x + following) / 2), dim=1).flatten(0, 1)


def _double_centred(x: Tensor) -> Tensor:
    before, following = torch.cat((x[:1], x[:-1])), torch.cat((x[1:], x[-1:]))
    return torch.stack(((before + 3 * x) / 4, (3 * x + following) / 4), dim=1).flatten(0, 1)


def _halve_centred(x: Tensor) -> Tensor:
    if x.shape[0] % 2:
        x = torch.cat((x, x[-1:]))
    return (x[0::2] + x[1::2]) / 2


def _halve_cosited(x: Tensor) -> Tensor:
    if x.shape[0] % 2:
        x = torch.cat((x, x[-1:]))
    before = torch.cat((x[:1], x[1:-1:2]))
    return (before + 2 * x[0::2] + x[1::2]) / 4
