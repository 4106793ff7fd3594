from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import native, rgb_to_yuv, yuv_to_rgb
from dtg_restore.kernels.rgb_to_yuv import OP
from dtg_restore.kernels.yuv import YuvCoding

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
WEIGHTS = [(0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)]
SHIFTS = [(1, 1), (1, 0), (0, 0), (0, 1)]


def picture(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1


@needs_native
@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (1, 2), (2, 1), (6, 64), (7, 129)])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_native_gives_the_codes_of_the_reference(
    shifts: tuple[int, int], size: tuple[int, int], bits: int
) -> None:
    coding = YuvCoding(0.2126, 0.0722, False, bits, shifts)
    got, want = OP(picture(*size), coding, name="native"), OP.reference(picture(*size), coding)
    assert all(map(torch.equal, got, want))
    assert [plane.dtype for plane in got] == 3 * [coding.dtype]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_equations_in_double_precision(full_range: bool, bits: int) -> None:
    """Rounded to the nearest: no code is more than half (and float32's error) from the value."""
    k_r, k_b = 0.2627, 0.0593
    coding = YuvCoding(k_r, k_b, full_range, bits, (0, 0))
    red, green, blue = picture(32, 32).double().clamp(0, 1)
    luma = k_r * red + (1 - k_r - k_b) * green + k_b * blue
    unit, peak = 2.0 ** (bits - 8), 2.0**bits - 1
    scales = (peak, peak, 0.0) if full_range else (219 * unit, 224 * unit, 16 * unit)
    want = (
        luma * scales[0] + scales[2],
        (blue - luma) / (2 * (1 - k_b)) * scales[1] + 128 * unit,
        (red - luma) / (2 * (1 - k_r)) * scales[1] + 128 * unit,
    )
    for got, exact in zip(rgb_to_yuv(picture(32, 32), coding), want, strict=True):
        assert (got.double() - exact.clamp(0, peak)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    "implementation", ["reference", pytest.param("native", marks=needs_native)]
)
def test_halves_are_rounded_to_even(implementation: str) -> None:
    coding = YuvCoding(0.25, 0.25, True, 8, (0, 0))
    exact = torch.tensor([0.5, 1.5, 2.5, 253.5, 254.5])
    grey = (exact / 255).expand(3, 1, 5).contiguous()
    y, cb, _ = rgb_to_yuv(grey, coding, implementation=implementation)
    exactly_half = (grey[0, 0] * 255) == exact  # where float32 gives the half again
    assert exactly_half.sum() >= 3
    assert torch.equal(y[0][exactly_half].float(), exact.round()[exactly_half])
    assert (cb == 128).all()


@pytest.mark.parametrize(("weights", "full_range"), list(product(WEIGHTS, (False, True))))
@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("size", [(16, 24), (3, 5)])
@pytest.mark.parametrize("bits", [8, 10])
def test_constant_pictures_return_within_the_rounding(
    weights: tuple[float, float],
    full_range: bool,
    shifts: tuple[int, int],
    size: tuple[int, int],
    bits: int,
) -> None:
    """Whatever the subsampling and at odd sizes: chroma of an even colour is even."""
    coding = YuvCoding(*weights, full_range, bits, shifts)
    colours = torch.rand(4, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    for colour in colours:
        rgb = colour.expand(3, *size).contiguous()
        back = yuv_to_rgb(*rgb_to_yuv(rgb, coding), coding)
        assert (back - rgb).abs().max() <= 1.7 / 2**bits / (1 if full_range else 219 / 256)


def test_grey_stays_grey_and_every_code_is_reached() -> None:
    for bits in (8, 10):
        coding = YuvCoding(0.2126, 0.0722, False, bits, (1, 1))
        unit = 2 ** (bits - 8)
        want = torch.arange(16 * unit, 235 * unit + 1)
        grey = ((want - 16 * unit) / (219 * unit)).float().expand(3, 2, -1).contiguous()
        y, cb, cr = rgb_to_yuv(grey, coding)
        assert torch.equal(y[0].long(), want)
        assert (cb.long() == 128 * unit).all()
        assert (cr.long() == 128 * unit).all()


def test_misfits_are_named() -> None:
    coding = YuvCoding(0.2126, 0.0722, False, 8, (1, 1))
    with pytest.raises(ValueError, match=r"rgb must be \(3, H, W\), got \(2, 4, 4\)"):
        rgb_to_yuv(torch.zeros(2, 4, 4), coding)
    with pytest.raises(ValueError, match="rgb must be float32, got torch.float64"):
        rgb_to_yuv(torch.zeros(3, 4, 4).double(), coding)
