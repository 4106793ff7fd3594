"""Triton version of kernels/yuv_to_rgb.py: chroma is read again for every pixel, from the cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..yuv import YuvCoding
from . import picture_tile


@triton.jit
def _beside(place, size, SHIFT: tl.constexpr, CENTRED: tl.constexpr):
    """Of a place in the picture: the sample of chroma that is nearest, the other one that it lies
    between, and the other's weight."""
    nearest = place >> SHIFT
    odd = place & SHIFT
    if CENTRED:
        other = tl.minimum(tl.maximum(nearest + 2 * odd - 1, 0), size - 1)
        weight = 0.25 * SHIFT + 0.0 * odd.to(tl.float32)
    else:
        other = tl.minimum(nearest + odd, size - 1)
        weight = 0.5 * odd.to(tl.float32)
    return nearest, other, weight


@triton.jit
def _blend(near, far, weight):
    return near * (1.0 - weight) + far * weight


@triton.jit
def _sample(plane_ptr, stride, row, column, inside):
    return tl.load(plane_ptr + row * stride + column, mask=inside, other=0).to(tl.float32)


@triton.jit
def _chroma(plane_ptr, stride, rows, columns, inside):
    """Every term is exact: sums of samples of 16 bits over powers of two."""
    row, other_row, row_weight = rows
    column, other_column, column_weight = columns
    left = _blend(
        _sample(plane_ptr, stride, row, column, inside),
        _sample(plane_ptr, stride, other_row, column, inside),
        row_weight,
    )
    right = _blend(
        _sample(plane_ptr, stride, row, other_column, inside),
        _sample(plane_ptr, stride, other_row, other_column, inside),
        row_weight,
    )
    return _blend(left, right, column_weight)


@triton.jit
def _unit(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _yuv_to_rgb_kernel(
    y_ptr,
    cb_ptr,
    cr_ptr,
    out_ptr,
    height,
    width,
    chroma_height,
    chroma_width,
    y_stride,
    cb_stride,
    cr_stride,
    y_offset,
    y_scale,
    middle,
    red_cr,
    green_cb,
    green_cr,
    blue_cb,
    SHIFT_X: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    row = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    column = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    inside = (row < height) & (column < width)
    rows = _beside(row, chroma_height, SHIFT_Y, True)
    columns = _beside(column, chroma_width, SHIFT_X, CENTRED)
    cb = _chroma(cb_ptr, cb_stride, rows, columns, inside) - middle
    cr = _chroma(cr_ptr, cr_stride, rows, columns, inside) - middle
    luma = (_sample(y_ptr, y_stride, row, column, inside) - y_offset) * y_scale
    place = row * width + column
    size = height * width
    red = _unit(luma + red_cr * cr)
    green = _unit(luma - green_cb * cb - green_cr * cr)
    blue = _unit(luma + blue_cb * cb)
    tl.store(out_ptr + place, red, mask=inside)
    tl.store(out_ptr + size + place, green, mask=inside)
    tl.store(out_ptr + 2 * size + place, blue, mask=inside)


def yuv_to_rgb(y: Tensor, cb: Tensor, cr: Tensor, coding: YuvCoding, centred: bool) -> Tensor:
    height, width = y.shape
    out = torch.empty(3, height, width, device=y.device)
    if out.numel() == 0:
        return out
    tile = picture_tile(height, width)
    grid = (triton.cdiv(width, tile["BLOCK_W"]), triton.cdiv(height, tile["BLOCK_H"]))
    _yuv_to_rgb_kernel[grid](
        y,
        cb,
        cr,
        out,
        height,
        width,
        *cb.shape,
        *(plane.stride(0) for plane in (y, cb, cr)),
        *coding.to_rgb(),
        SHIFT_X=coding.shifts[0],
        SHIFT_Y=coding.shifts[1],
        CENTRED=centred,
        **tile,
    )
    return out
