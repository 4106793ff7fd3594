"""Planes of YUV code values to gamma-encoded RGB, in one pass over memory.

    chroma = linear upsampling of cb, cr to the size of y, less the middle of the scale
    (R, G, B) = (y - offset) / gain + M (cb, cr), clamped to [0, 1]

A 4:2:0 picture of 8 bits is 1.5 bytes a pixel of reads and 12 of writes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons
from .yuv import DTYPES, Shifts, YuvCoding, check_coding, shift_reasons, upsample_chroma


def yuv_to_rgb(
    y: Tensor,
    cb: Tensor,
    cr: Tensor,
    coding: YuvCoding,
    centred: bool = False,
    *,
    implementation: str | None = None,
) -> Tensor:
    """RGB of a picture from its planes.

    Parameters
    ----------
    y : (H, W) uint8 for 8 bits, uint16 above; rows may lie apart
    cb, cr : `coding.chroma_size(H, W)`, of the dtype of `y`
    coding : matrix, range, bits and subsampling
    centred : a chroma sample lies between two columns (JPEG) rather than on the left one (MPEG)
    implementation : its name, or None for the best one that takes these planes

    Returns
    -------
    Tensor (3, H, W) float32 in [0, 1], in new memory.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit the coding
    KernelChoiceError : the implementation that was asked for cannot run

    Source: ITU-T H.273, equations of MatrixCoefficients.
    """
    check_coding(coding)
    _check(y, cb, cr, coding)
    return OP(y, cb, cr, coding, centred, name=implementation)


def reference(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding, centred: bool) -> Tensor:
    m = coding.to_rgb()
    height, width = y.shape
    planes = (upsample_chroma(c.float(), height, width, coding.shifts, centred) for c in (cb, cr))
    blue_difference, red_difference = (plane - m.middle for plane in planes)
    luma = (y.float() - m.y_offset) * m.y_scale
    red = luma + m.red_cr * red_difference
    green = luma - m.green_cb * blue_difference - m.green_cr * red_difference
    blue = luma + m.blue_cb * blue_difference
    return torch.stack((red, green, blue)).clamp_(0, 1)


def _check(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding) -> None:
    if y.ndim != 2:
        raise ValueError(f"y must be (H, W), got {tuple(y.shape)}")
    size = coding.chroma_size(*y.shape)
    for name, plane, wanted in (("y", y, tuple(y.shape)), ("cb", cb, size), ("cr", cr, size)):
        if tuple(plane.shape) != wanted or plane.device != y.device:
            raise ValueError(
                f"{name} must be {wanted} on {y.device}, got {tuple(plane.shape)} on {plane.device}"
            )
        if plane.dtype != coding.dtype:
            raise ValueError(
                f"{name} of {coding.bits} bits must be {coding.dtype}, got {plane.dtype}"
            )


def _native(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding, centred: bool) -> Tensor:
    out = torch.empty(3, *y.shape)
    native.library().yuv_to_rgb(
        planes=[(plane.data_ptr(), plane.stride(0)) for plane in (y, cb, cr)],
        size=tuple(y.shape),
        shifts=coding.shifts,
        wide=coding.bits > 8,
        centred=centred,
        coefficients=coding.to_rgb(),
        out=out.data_ptr(),
        num_threads=torch.get_num_threads(),
    )
    return out


def _unsupported(device_type: str, y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding) -> list:
    rows: dict[str, Tensor | None] = {"y": y, "cb": cb, "cr": cr}
    return address_reasons(device_type, rows, dtypes=DTYPES) + shift_reasons(coding.shifts)


def _native_unsupported(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding, _: bool) -> list[str]:
    return _unsupported("cpu", y, cb, cr, coding)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.yuv_to_rgb import yuv_to_rgb as triton_yuv_to_rgb

    return triton_yuv_to_rgb


def _triton_unsupported(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding, _: bool) -> list[str]:
    return _unsupported(triton_kernels.device_type(), y, cb, cr, coding)


def _inputs(
    _dtype: torch.dtype,
    device: torch.device,
    size: tuple[int, int],
    shifts: Shifts = (1, 1),
    bits: int = 8,
    full_range: bool = False,
    centred: bool = False,
    padding: int = 0,
) -> tuple[Tensor, Tensor, Tensor, YuvCoding, bool]:
    coding = YuvCoding(0.2126, 0.0722, full_range, bits, shifts)
    generator = torch.Generator().manual_seed(bits)

    def plane(height: int, width: int) -> Tensor:
        shape = (height, width + padding)
        codes = torch.randint(0, 1 << bits, shape, generator=generator, dtype=torch.int32)
        return codes.to(coding.dtype).to(device)[:, :width]

    chroma = coding.chroma_size(*size)
    return plane(*size), plane(*chroma), plane(*chroma), coding, centred


OP = Op(
    name="yuv_to_rgb",
    formula="clamp((y - offset) / gain + M (up(cb, cr) - middle))",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance={torch.float32: Tolerance(rtol=1e-6, atol=1e-6)},
    cases=(
        Case("odd sizes", partial(_inputs, size=(3, 5))),
        Case("odd sizes, 10 bits", partial(_inputs, size=(7, 13), bits=10, padding=3)),
        Case("one frame", partial(_inputs, size=(6, 8), shifts=(0, 0), full_range=True)),
        Case("one value", partial(_inputs, size=(1, 1))),
        Case("empty", partial(_inputs, size=(0, 8))),
        Case("4:2:2, 10 bits", partial(_inputs, size=(4, 9), shifts=(1, 0), bits=10)),
        Case("4:4:0", partial(_inputs, size=(5, 4), shifts=(0, 1))),
        Case("4:1:0", partial(_inputs, size=(5, 9), shifts=(2, 2))),
        Case("16 bits", partial(_inputs, size=(6, 11), bits=16, full_range=True)),
        Case("centred", partial(_inputs, size=(5, 11), centred=True, full_range=True)),
        Case("non-contiguous", partial(_inputs, size=(8, 18), padding=14)),
        Case("production", partial(_inputs, size=(1080, 1920))),
    ),
)
