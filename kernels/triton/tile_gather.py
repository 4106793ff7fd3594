"""Triton version of kernels/tile_gather.py: one read and `repeat` writes a value."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import interpreted


@triton.jit
def _tile_gather_kernel(
    x_ptr,
    origins_ptr,
    out_ptr,
    num,
    planes,
    height,
    width,
    tile_size,
    tile_width,
    repeat,
    BLOCK_P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(tile_size, BLOCK)
    # int64: a long clip in pixels has more than 2^31 values.
    out_plane = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (out_plane < num) & (i < tile_size)
    tile, plane = out_plane // planes, out_plane % planes
    y = tl.load(origins_ptr + 2 * tile, mask=out_plane < num, other=0) + i // tile_width
    x = tl.load(origins_ptr + 2 * tile + 1, mask=out_plane < num, other=0) + i % tile_width
    value = tl.load(x_ptr + (plane * height + y) * width + x, mask=inside)
    for _ in range(repeat):
        tl.store(out_ptr + out_plane * tile_size + i, value, mask=inside)
        out_plane += num


def tile_gather(x: Tensor, origins: Tensor, size: tuple[int, int], repeat: int) -> Tensor:
    _, channels, frames, height, width = x.shape
    out = x.new_empty(repeat * len(origins), channels, frames, *size)
    if out.numel() == 0:
        return out
    num = len(origins) * channels * frames
    block = (
        (32, 4096) if interpreted() else (1, 1024)
    )  # a program costs the interpreter milliseconds
    tile_size = size[0] * size[1]
    _tile_gather_kernel[(triton.cdiv(num, block[0]) * triton.cdiv(tile_size, block[1]),)](
        x,
        origins,
        out,
        num,
        channels * frames,
        height,
        width,
        tile_size,
        size[1],
        repeat,
        BLOCK_P=block[0],
        BLOCK=block[1],
    )
    return out
