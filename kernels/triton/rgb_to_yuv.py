"""Triton version of kernels/rgb_to_yuv.py: a program has whole groups of pixels with one chroma.

Products are not fused with sums, so that every code is that of the reference.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..yuv import Planes, YuvCoding, empty_planes
from . import picture_tile


@triton.jit
def _code(x, peak):
    """To the nearest, ties to even: the sum has no bits left for a fraction."""
    return (tl.minimum(tl.maximum(x, 0.0), peak) + 12582912.0) - 12582912.0


@triton.jit
def _channel(rgb_ptr, place, inside):
    x = tl.load(rgb_ptr + place, mask=inside, other=0.0)
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _differences(rgb_ptr, channel_stride, place, inside, k_r, k_g, k_b):
    """Luma, and blue and red less luma."""
    red = _channel(rgb_ptr, place, inside)
    green = _channel(rgb_ptr + channel_stride, place, inside)
    blue = _channel(rgb_ptr + 2 * channel_stride, place, inside)
    luma = k_r * red + k_g * green + k_b * blue
    return luma, blue - luma, red - luma


@triton.jit
def _halve_columns(x, before, has_odd, SHAPE_H: tl.constexpr, SHAPE_W: tl.constexpr):
    """(before + 2 even + odd) / 4 of pairs of columns; the last even one is repeated."""
    even, odd = tl.split(tl.reshape(x, (SHAPE_H, SHAPE_W // 2, 2)))
    return (before + 2.0 * even + tl.where(has_odd, odd, even)) * 0.25


@triton.jit
def _rgb_to_yuv_kernel(
    rgb_ptr,
    y_ptr,
    cb_ptr,
    cr_ptr,
    height,
    width,
    chroma_height,
    chroma_width,
    channel_stride,
    row_stride,
    k_r,
    k_g,
    k_b,
    y_gain,
    y_offset,
    cb_gain,
    cr_gain,
    middle,
    peak,
    SHIFT_X: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    CHROMA_W: tl.constexpr = BLOCK_W >> SHIFT_X
    chroma_row = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    chroma_column = tl.program_id(0) * CHROMA_W + tl.arange(0, CHROMA_W)[None, :]
    column = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    inside = (chroma_row < chroma_height) & (column < width)
    there = (chroma_row < chroma_height) & (chroma_column < chroma_width)
    before = tl.maximum(2 * chroma_column - 1, 0)
    cb = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
    cr = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
    cb_before = tl.zeros((BLOCK_H, CHROMA_W), tl.float32)
    cr_before = tl.zeros((BLOCK_H, CHROMA_W), tl.float32)
    for dy in tl.static_range(SHIFT_Y + 1):
        wanted = (chroma_row << SHIFT_Y) + dy
        row = tl.minimum(wanted, height - 1)  # the last of an odd number counts twice
        luma, b, r = _differences(
            rgb_ptr, channel_stride, row * row_stride + column, inside, k_r, k_g, k_b
        )
        y = _code(luma * y_gain + y_offset, peak).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + row * width + column, y, mask=inside & (wanted < height))
        cb += b * cb_gain + middle
        cr += r * cr_gain + middle
        if SHIFT_X:
            _, b, r = _differences(
                rgb_ptr, channel_stride, row * row_stride + before, there, k_r, k_g, k_b
            )
            cb_before += b * cb_gain + middle
            cr_before += r * cr_gain + middle
    scale: tl.constexpr = 1.0 / (SHIFT_Y + 1)
    cb *= scale
    cr *= scale
    if SHIFT_X:
        has_odd = 2 * chroma_column + 1 < width
        cb = _halve_columns(cb, cb_before * scale, has_odd, BLOCK_H, BLOCK_W)
        cr = _halve_columns(cr, cr_before * scale, has_odd, BLOCK_H, BLOCK_W)
    place = chroma_row * chroma_width + chroma_column
    tl.store(cb_ptr + place, _code(cb, peak).to(cb_ptr.dtype.element_ty), mask=there)
    tl.store(cr_ptr + place, _code(cr, peak).to(cr_ptr.dtype.element_ty), mask=there)


def rgb_to_yuv(rgb: Tensor, coding: YuvCoding) -> Planes:
    y, cb, cr = empty_planes(rgb, coding)
    if y.numel() == 0:
        return y, cb, cr
    height, width = y.shape
    tile = picture_tile(cb.shape[0], width)
    grid = (triton.cdiv(width, tile["BLOCK_W"]), triton.cdiv(cb.shape[0], tile["BLOCK_H"]))
    _rgb_to_yuv_kernel[grid](
        rgb,
        y,
        cb,
        cr,
        height,
        width,
        *cb.shape,
        *rgb.stride()[:2],
        *coding.to_yuv(),
        SHIFT_X=coding.shifts[0],
        SHIFT_Y=coding.shifts[1],
        enable_fp_fusion=False,
        **tile,
    )
    return y, cb, cr
