"""Triton version of kernels/tile_blend.py: every place of the result sums over its tiles."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import interpreted


@triton.jit
def _tile_blend_kernel(
    tiles_ptr,
    origins_ptr,
    window_y_ptr,
    window_x_ptr,
    out_ptr,
    num,
    planes,
    height,
    vectors,
    tile_height,
    tile_width,
    VECTOR: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    width = vectors * VECTOR  # a multiple, which the compiler has to know
    across, down = tl.cdiv(width, BLOCK_X), tl.cdiv(height, BLOCK_Y)
    program = tl.program_id(0)
    left, top = program % across * BLOCK_X, program // across % down * BLOCK_Y
    plane = program // (across * down) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None, None]
    y = top + tl.arange(0, BLOCK_Y)[None, :, None]
    x = left + tl.arange(0, BLOCK_X)[None, None, :]
    inside = (plane < planes) & (y < height) & (x < width)
    total = tl.zeros((BLOCK_P, BLOCK_Y, BLOCK_X), tl.float32)
    for n in range(num):
        tile_y = y - tl.load(origins_ptr + 2 * n)
        tile_x = x - tl.load(origins_ptr + 2 * n + 1)
        in_y = (tile_y >= 0) & (tile_y < tile_height)
        in_x = (tile_x >= 0) & (tile_x < tile_width)
        weight = tl.load(window_y_ptr + n * tile_height + tile_y, mask=in_y, other=0.0)
        weight *= tl.load(window_x_ptr + n * tile_width + tile_x, mask=in_x, other=0.0)
        # int64: a long clip in pixels has more than 2^31 values.
        row = ((n * planes + plane).to(tl.int64) * tile_height + tile_y) * tile_width
        value = tl.load(tiles_ptr + row + tile_x, mask=inside & in_y & in_x, other=0.0)
        total += value.to(tl.float32) * weight
    place = (plane.to(tl.int64) * height + y) * width + x
    tl.store(out_ptr + place, total, mask=inside)


def tile_blend(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, size: tuple[int, int]
) -> Tensor:
    num, channels, frames, *tile = values.shape
    out = values.new_empty(1, channels, frames, *size, dtype=torch.float32)
    if out.numel() == 0:
        return out
    planes = channels * frames
    block = (8, 128, 128) if interpreted() else (1, 8, 64)
    vector = 4 if size[1] % 4 == 0 else 1
    blocks = [triton.cdiv(a, b) for a, b in zip((planes, *size), block, strict=True)]
    _tile_blend_kernel[(blocks[0] * blocks[1] * blocks[2],)](
        values,
        origins,
        window_y,
        window_x,
        out,
        num,
        planes,
        size[0],
        size[1] // vector,
        *tile,
        VECTOR=vector,
        **dict(zip(("BLOCK_P", "BLOCK_Y", "BLOCK_X"), block, strict=True)),
    )
    return out
