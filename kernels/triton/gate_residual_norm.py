"""Triton version of kernels/gate_residual_norm.py: a row stays in registers for the norm."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..tokens import sample_stride
from . import row_tile
from .rows import layernorm, tile


@triton.jit
def _gate_residual_norm_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    scale_ptr,
    shift_ptr,
    sum_ptr,
    normed_ptr,
    rows,
    num_tokens,
    gate_stride,
    scale_stride,
    shift_stride,
    eps,
    HAS_GATE: tl.constexpr,
    AFFINE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, column, inside = tile(rows, DIM, BLOCK_ROWS, BLOCK_D)
    sample = row // num_tokens
    place = row * DIM + column
    total = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_GATE:
        gate = tl.load(gate_ptr + sample * gate_stride + column, mask=inside, other=0.0)
        y = y * gate.to(tl.float32)
    total += y
    tl.store(sum_ptr + place, total.to(sum_ptr.dtype.element_ty), mask=inside)
    normed = layernorm(total, column, DIM, eps)
    scale = tl.load(scale_ptr + sample * scale_stride + column, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + sample * shift_stride + column, mask=inside, other=0.0)
    scale = scale.to(tl.float32)
    if not AFFINE:
        scale += 1.0
    normed = normed * scale + shift.to(tl.float32)
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=inside)


def gate_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    affine: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    total, normed = x.new_empty(x.shape), x.new_empty(x.shape)
    batch, num_tokens, dim = x.shape
    rows = batch * num_tokens
    if rows == 0:
        return total, normed
    launch = row_tile(rows, dim)
    _gate_residual_norm_kernel[(triton.cdiv(rows, launch["BLOCK_ROWS"]),)](
        x,
        y,
        scale if gate is None else gate,
        scale,
        shift,
        total,
        normed,
        rows,
        num_tokens,
        0 if gate is None else sample_stride(gate),
        sample_stride(scale),
        sample_stride(shift),
        eps,
        HAS_GATE=gate is not None,
        AFFINE=affine,
        DIM=dim,
        **launch,
    )
    return total, normed
