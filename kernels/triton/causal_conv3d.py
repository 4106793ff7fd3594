"""Triton version of kernels/causal_conv3d.py: a program writes whole pixels."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import row_tile
from .rows import tile


@triton.jit
def _causal_conv3d_kernel(
    past_ptr,
    x_ptr,
    out_ptr,
    rows,
    before,
    height,
    width,
    HAS_PAST: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, column, inside = tile(rows, DIM, BLOCK_ROWS, BLOCK_D)  # a row is a pixel of the result
    line = row // (width + 2)
    x, y, frame = row % (width + 2) - 1, line % (height + 2) - 1, line // (height + 2)
    seen = inside & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = (y * width + x) * DIM + column
    size = height * width * DIM
    new = seen & (frame >= before)
    value = tl.load(x_ptr + (frame - before) * size + place, mask=new, other=0.0)
    if HAS_PAST:
        old = seen & (frame < before)
        value = tl.where(old, tl.load(past_ptr + frame * size + place, mask=old, other=0.0), value)
    tl.store(out_ptr + row * DIM + column, value, mask=inside)


def causal_conv3d(x: Tensor, past: Tensor | None, taps: int) -> Tensor:
    frames, height, width, channels = x.shape
    out = x.new_empty(frames + taps - 1, height + 2, width + 2, channels)
    rows = out.numel() // channels
    if rows == 0:
        return out
    launch = row_tile(rows, channels)
    _causal_conv3d_kernel[(triton.cdiv(rows, launch["BLOCK_ROWS"]),)](
        x if past is None else past,
        x,
        out,
        rows,
        taps - 1,
        height,
        width,
        HAS_PAST=past is not None,
        DIM=channels,
        **launch,
    )
    return out
