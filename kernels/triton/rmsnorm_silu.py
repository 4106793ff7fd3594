"""Triton version of kernels/rmsnorm_silu.py: a row stays in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import row_tile
from .rows import tile


@triton.jit
def _rmsnorm_silu_kernel(
    x_ptr,
    gamma_ptr,
    out_ptr,
    rows,
    eps,
    SILU: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, column, inside = tile(rows, DIM, BLOCK_ROWS, BLOCK_D)
    place = row * DIM + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x * x, axis=1, keep_dims=True) / DIM
    # A load for every row, as the rows of a program share the threads: wide, and from the cache.
    gamma = tl.load(gamma_ptr + 0 * row + column, mask=inside, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(mean + eps) * gamma
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)


def rmsnorm_silu(x: Tensor, gamma: Tensor, eps: float, silu: bool) -> Tensor:
    out = x.new_empty(x.shape)
    dim = x.shape[-1]
    rows = x.numel() // dim
    if rows == 0:
        return out
    launch = row_tile(rows, dim)
    _rmsnorm_silu_kernel[(triton.cdiv(rows, launch["BLOCK_ROWS"]),)](
        x, gamma, out, rows, eps, SILU=silu, DIM=dim, **launch
    )
    return out
