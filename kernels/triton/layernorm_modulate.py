"""Triton version of kernels/layernorm_modulate.py: a row stays in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..tokens import sample_stride
from . import row_tile
from .rows import layernorm, tile


@triton.jit
def _layernorm_modulate_kernel(
    x_ptr,
    scale_ptr,
    shift_ptr,
    out_ptr,
    rows,
    num_tokens,
    scale_stride,
    shift_stride,
    eps,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, column, inside = tile(rows, DIM, BLOCK_ROWS, BLOCK_D)
    sample = row // num_tokens
    place = row * DIM + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    y = layernorm(x, column, DIM, eps)
    scale = tl.load(scale_ptr + sample * scale_stride + column, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + sample * shift_stride + column, mask=inside, other=0.0)
    y = y * (1.0 + scale.to(tl.float32)) + shift.to(tl.float32)
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)


def layernorm_modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    out = x.new_empty(x.shape)
    batch, num_tokens, dim = x.shape
    rows = batch * num_tokens
    if rows == 0:
        return out
    launch = row_tile(rows, dim)
    _layernorm_modulate_kernel[(triton.cdiv(rows, launch["BLOCK_ROWS"]),)](
        x,
        scale,
        shift,
        out,
        rows,
        num_tokens,
        sample_stride(scale),
        sample_stride(shift),
        eps,
        DIM=dim,
        **launch,
    )
    return out
