"""Gamma-encoded RGB to planes of YUV code values, in one pass over memory.

    y = k_r R + k_g G + k_b B        cb ~ B - y        cr ~ R - y
    code = round(gain * value + offset), chroma after it was brought to its size

Rounded to the nearest, once, ties to even.  A 4:2:0 picture of 8 bits is 12 bytes a pixel of reads
and 1.5 of writes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons
from .yuv import (
    Planes,
    Shifts,
    YuvCoding,
    check_coding,
    downsample_chroma,
    empty_planes,
    shift_reasons,
)


def rgb_to_yuv(rgb: Tensor, coding: YuvCoding, *, implementation: str | None = None) -> Planes:
    """The planes of a picture, with chroma on the left column of those it stands for.

    Parameters
    ----------
    rgb : (3, H, W) float32, clamped to [0, 1]
    coding : matrix, range, bits and subsampling
    implementation : its name, or None for the best one that takes this picture

    Returns
    -------
    y (H, W), cb and cr `coding.chroma_size(H, W)`: uint8 for 8 bits, uint16 above, in new memory.

    Raises
    ------
    ValueError : shape or dtype do not fit
    KernelChoiceError : the implementation that was asked for cannot run

    Source: ITU-T H.273, equations of MatrixCoefficients.
    """
    check_coding(coding)
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise ValueError(f"rgb must be (3, H, W), got {tuple(rgb.shape)}")
    if rgb.dtype != torch.float32:
        raise ValueError(f"rgb must be float32, got {rgb.dtype}")
    return OP(rgb, coding, name=implementation)


def reference(rgb: Tensor, coding: YuvCoding) -> Planes:
    m = coding.to_yuv()
    red, green, blue = rgb.clamp(0, 1)
    luma = m.k_r * red + m.k_g * green + m.k_b * blue
    cb = downsample_chroma((blue - luma) * m.cb_gain + m.middle, coding.shifts)
    cr = downsample_chroma((red - luma) * m.cr_gain + m.middle, coding.shifts)
    y, cb, cr = (
        plane.round().clamp_(0, m.peak).to(coding.dtype).contiguous()
        for plane in (luma * m.y_gain + m.y_offset, cb, cr)
    )
    return y, cb, cr


def _native(rgb: Tensor, coding: YuvCoding) -> Planes:
    planes = empty_planes(rgb, coding)
    native.library().rgb_to_yuv(
        rgb=rgb.data_ptr(),
        strides=rgb.stride()[:2],
        size=tuple(rgb.shape[1:]),
        shifts=coding.shifts,
        wide=coding.bits > 8,
        coefficients=coding.to_yuv(),
        planes=[plane.data_ptr() for plane in planes],
        num_threads=torch.get_num_threads(),
    )
    return planes


def _native_unsupported(rgb: Tensor, coding: YuvCoding) -> list[str]:
    return address_reasons("cpu", {"rgb": rgb}) + shift_reasons(coding.shifts)


def _load_triton() -> Callable[..., Planes]:
    from .triton.rgb_to_yuv import rgb_to_yuv as triton_rgb_to_yuv

    return triton_rgb_to_yuv


def _triton_unsupported(rgb: Tensor, coding: YuvCoding) -> list[str]:
    reasons = address_reasons(triton_kernels.device_type(), {"rgb": rgb})
    return reasons + shift_reasons(coding.shifts)


def _inputs(
    _dtype: torch.dtype,
    device: torch.device,
    size: tuple[int, int],
    shifts: Shifts = (1, 1),
    bits: int = 8,
    full_range: bool = False,
    padding: int = 0,
) -> tuple[Tensor, YuvCoding]:
    height, width = size
    generator = torch.Generator().manual_seed(bits)
    rgb = torch.rand(3, height + padding, width + padding, generator=generator) * 1.2 - 0.1
    coding = YuvCoding(0.2126, 0.0722, full_range, bits, shifts)
    return rgb.to(device)[:, :height, :width], coding


OP = Op(
    name="rgb_to_yuv",
    formula="round(down(gain * (M rgb) + offset))",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    # The results are whole numbers, so that this means equal.
    tolerance={torch.float32: Tolerance(rtol=1e-6, atol=1e-6)},
    cases=(
        Case("odd sizes", partial(_inputs, size=(3, 5))),
        Case("odd sizes, 10 bits", partial(_inputs, size=(7, 13), bits=10)),
        Case("one frame", partial(_inputs, size=(6, 8), shifts=(0, 0), full_range=True)),
        Case("one value", partial(_inputs, size=(1, 1))),
        Case("empty", partial(_inputs, size=(0, 8))),
        Case("4:2:2, 10 bits", partial(_inputs, size=(4, 9), shifts=(1, 0), bits=10)),
        Case("4:4:0", partial(_inputs, size=(5, 4), shifts=(0, 1))),
        Case("4:1:0", partial(_inputs, size=(5, 9), shifts=(2, 2))),
        Case("16 bits", partial(_inputs, size=(6, 11), bits=16, full_range=True)),
        Case("non-contiguous", partial(_inputs, size=(8, 18), padding=7)),
        Case("production", partial(_inputs, size=(1080, 1920))),
    ),
)
