from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import KernelChoiceError, native, yuv_to_rgb
from dtg_restore.kernels.yuv import YuvCoding
from dtg_restore.kernels.yuv_to_rgb import OP

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
SHIFTS = [(1, 1), (1, 0), (0, 0), (0, 1)]


def codes(*size: int, bits: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 1 << bits, size, generator=generator, dtype=torch.int32)
    return values.to(torch.uint8 if bits == 8 else torch.uint16)


def planes(coding: YuvCoding, height: int, width: int) -> list[Tensor]:
    sizes = [(height, width), *2 * [coding.chroma_size(height, width)]]
    return [codes(*size, bits=coding.bits, seed=i) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_equations_in_double_precision(matrix: str, full_range: bool, bits: int) -> None:
    """H.273: E' = (code - offset) / gain, then R from Y + 2 (1 - k_r) Cr, G from the luma sum."""
    k_r, k_b = MATRICES[matrix]
    coding = YuvCoding(k_r, k_b, full_range, bits, (0, 0))
    y, cb, cr = (plane.double() for plane in planes(coding, 16, 16))
    unit = 2.0 ** (bits - 8)
    peak = 2.0**bits - 1
    y = y / peak if full_range else (y - 16 * unit) / (219 * unit)
    cb, cr = ((c - 128 * unit) / (peak if full_range else 224 * unit) for c in (cb, cr))
    red, blue = y + 2 * (1 - k_r) * cr, y + 2 * (1 - k_b) * cb
    green = (y - k_r * red - k_b * blue) / (1 - k_r - k_b)
    want = torch.stack((red, green, blue)).clamp(0, 1)
    got = yuv_to_rgb(*planes(coding, 16, 16), coding)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)


@needs_native
@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (1, 2), (2, 1), (6, 64), (7, 129)])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_native_gives_the_bits_of_the_reference(
    shifts: tuple[int, int], size: tuple[int, int], centred: bool, bits: int
) -> None:
    coding = YuvCoding(0.299, 0.114, False, bits, shifts)
    arguments = (*planes(coding, *size), coding, centred)
    assert torch.equal(OP(*arguments, name="native"), OP.reference(*arguments))


def test_a_sample_of_chroma_lies_where_it_should() -> None:
    """Cr of one sample among grey ones: rows get 3/4 and 1/4 of it, columns all and a half."""
    coding = YuvCoding(0.2126, 0.0722, False, 8, (1, 1))
    y, cb, cr = torch.full((8, 8), 126, dtype=torch.uint8), *torch.full((2, 4, 4), 128).byte()
    cr[1, 1] += 16
    red = yuv_to_rgb(y, cb, cr, coding)[0] - 110 / 219
    step = 2 * (1 - 0.2126) * 16 / 224
    rows, columns = torch.tensor([0.25, 0.75, 0.75, 0.25]), torch.tensor([0.5, 1.0, 0.5])
    want = torch.zeros(8, 8)
    want[1:5, 1:4] = step * rows[:, None] * columns
    torch.testing.assert_close(red, want, rtol=0, atol=1e-6)
    centred = yuv_to_rgb(y, cb, cr, coding, True)[0] - 110 / 219
    want = torch.zeros(8, 8)
    want[1:5, 1:5] = step * rows[:, None] * rows
    torch.testing.assert_close(centred, want, rtol=0, atol=1e-6)


def test_misfits_are_named() -> None:
    coding = YuvCoding(0.2126, 0.0722, False, 8, (1, 1))
    y, cb, cr = planes(coding, 3, 5)
    with pytest.raises(ValueError, match=r"cb must be \(2, 3\) on cpu, got \(3, 5\)"):
        yuv_to_rgb(y, y, cr, coding)
    with pytest.raises(ValueError, match="y of 10 bits must be torch.uint16, got torch.uint8"):
        yuv_to_rgb(y, cb, cr, coding._replace(bits=10))
    with pytest.raises(ValueError, match="bits must be 8 to 16, got 7"):
        yuv_to_rgb(y, cb, cr, coding._replace(bits=7))
    with pytest.raises(ValueError, match="shifts must be 0, 1 or 2"):
        yuv_to_rgb(y, cb, cr, coding._replace(shifts=(3, 0)))


@needs_native
def test_what_native_cannot_take_has_a_reason() -> None:
    coding = YuvCoding(0.2126, 0.0722, False, 8, (2, 0))
    arguments = (codes(4, 8), codes(4, 2), codes(4, 2), coding)
    assert yuv_to_rgb(*arguments).shape == (3, 4, 8)
    with pytest.raises(KernelChoiceError, match="subsampled by more than 2"):
        yuv_to_rgb(*arguments, implementation="native")
    assert OP.get("native").unsupported(
        codes(8, 4).T, codes(2, 2), codes(2, 2), coding._replace(shifts=(1, 1)), False
    ) == ["y is not contiguous in the last dimension"]
