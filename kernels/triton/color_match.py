"""Triton version of kernels/color_match.py: a launch for each level of the pyramid."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..coarse import RADII, statistics
from . import picture_tile


@triton.jit
def _tile(height, width, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """This program's frame, channel, rows, columns, and which places exist."""
    row = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    column = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    plane = tl.program_id(2).to(tl.int64)  # a long clip has more than 2^31 values
    return plane // 3, plane % 3, row, column, (row < height) & (column < width)


@triton.jit
def _color_match_level_kernel(
    x_ptr,
    in_ptr,
    out_ptr,
    height,
    width,
    x_frame,
    x_channel,
    x_row,
    in_frame,
    in_channel,
    in_row,
    RADIUS: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """`in` is the reference at the first level, the level before at others."""
    frame, channel, row, column, inside = _tile(height, width, BLOCK_H, BLOCK_W)
    x_ptr += frame * x_frame + channel * x_channel
    in_ptr += frame * in_frame + channel * in_channel
    low = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
    for dy in tl.static_range(-1, 2):
        y = tl.minimum(tl.maximum(row + dy * RADIUS, 0), height - 1) if dy else row
        for dx in tl.static_range(-1, 2):
            x = tl.minimum(tl.maximum(column + dx * RADIUS, 0), width - 1) if dx else column
            tap = tl.load(in_ptr + y * in_row + x, mask=inside, other=0.0).to(tl.float32)
            if FIRST:
                tap -= tl.load(x_ptr + y * x_row + x, mask=inside, other=0.0).to(tl.float32)
            low += tap * ((0.25 if dx else 0.5) * (0.25 if dy else 0.5))
    if LAST:
        low += tl.load(x_ptr + row * x_row + column, mask=inside, other=0.0).to(tl.float32)
    place = (frame * 3 + channel) * height * width + row * width + column
    tl.store(out_ptr + place, low, mask=inside)


@triton.jit
def _color_match_affine_kernel(
    x_ptr,
    center_ptr,
    gain_ptr,
    shift_ptr,
    out_ptr,
    height,
    width,
    x_frame,
    x_channel,
    x_row,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    frame, channel, row, column, inside = _tile(height, width, BLOCK_H, BLOCK_W)
    plane = frame * 3 + channel
    x_ptr += frame * x_frame + channel * x_channel
    x = tl.load(x_ptr + row * x_row + column, mask=inside, other=0.0).to(tl.float32)
    y = (x - tl.load(center_ptr + plane)) * tl.load(gain_ptr + plane) + tl.load(shift_ptr + plane)
    tl.store(out_ptr + plane * height * width + row * width + column, x + y, mask=inside)


def color_match(frames: Tensor, reference: Tensor, method: str) -> Tensor:
    num_frames, _, height, width = frames.shape
    out = torch.empty(frames.shape, device=frames.device)
    if out.numel() == 0:
        return out
    tile = picture_tile(height, width)
    grid = (
        triton.cdiv(width, tile["BLOCK_W"]),
        triton.cdiv(height, tile["BLOCK_H"]),
        3 * num_frames,
    )
    x_strides = frames.stride()[:3]
    if method == "adain":
        affine = statistics(frames, reference)
        _color_match_affine_kernel[grid](frames, *affine, out, height, width, *x_strides, **tile)
        return out
    source, spare = reference, torch.empty_like(out)
    for radius in RADII:
        _color_match_level_kernel[grid](
            frames,
            source,
            out,
            height,
            width,
            *x_strides,
            *source.stride()[:3],
            RADIUS=radius,
            FIRST=radius == RADII[0],
            LAST=radius == RADII[-1],
            **tile,
        )
        source, out, spare = out, spare, out
    return source
