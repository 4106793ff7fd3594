"""Triton version of kernels/rmsnorm_rope.py: norm, rotation and change of layout in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import row_tile
from .rows import tile


@triton.jit
def _rmsnorm_rope_kernel(
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    rows,
    num_tokens,
    eps,
    ROTATED: tl.constexpr,
    DIM: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    HEAD_DIM: tl.constexpr = DIM // HEADS
    row, column, inside = tile(rows, DIM, BLOCK_ROWS, BLOCK_D)
    token = row % num_tokens
    x = tl.load(x_ptr + row * DIM + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=column < DIM, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1, keep_dims=True) / DIM + eps) * weight
    if ROTATED:
        # Loads and stores stay whole rows, which are 128 bits wide; pairs exist in registers only.
        even, odd = tl.split(tl.reshape(y, (BLOCK_ROWS, BLOCK_D // 2, 2)))
        pair = tl.arange(0, BLOCK_D // 2)[None, :]
        angle = token * (HEAD_DIM // 2) + pair % (HEAD_DIM // 2)
        known = (row < rows) & (pair < DIM // 2)
        cos = tl.load(cos_ptr + angle, mask=known, other=0.0)
        sin = tl.load(sin_ptr + angle, mask=known, other=0.0)
        turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
        y = tl.reshape(turned, (BLOCK_ROWS, BLOCK_D))
    head = (row // num_tokens) * HEADS + column // HEAD_DIM
    place = (head * num_tokens + token) * HEAD_DIM + column % HEAD_DIM
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)


def rmsnorm_rope(
    x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, heads: int, eps: float
) -> Tensor:
    batch, num_tokens, dim = x.shape
    out = x.new_empty(batch, heads, num_tokens, dim // heads)
    rows = batch * num_tokens
    if rows == 0:
        return out
    launch = row_tile(rows, dim)
    _rmsnorm_rope_kernel[(triton.cdiv(rows, launch["BLOCK_ROWS"]),)](
        x,
        weight,
        weight if cos is None else cos,
        weight if sin is None else sin,
        out,
        rows,
        num_tokens,
        eps,
        ROTATED=cos is not None,
        DIM=dim,
        HEADS=heads,
        **launch,
    )
    return out
