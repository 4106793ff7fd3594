"""Triton version of kernels/dtg_step.py: three reads and one write a value."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import interpreted


# Not to be compiled anew for each row, as an int that is 1 or a multiple of 16 would be.
@triton.jit(do_not_specialize=["row"])
def _dtg_step_kernel(
    x_ptr,
    v_cond_ptr,
    v_uncond_ptr,
    table_ptr,
    row_ptr,
    out_ptr,
    num,
    row,
    HAS_UNCOND: tl.constexpr,
    ROW_ON_DEVICE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # int64: a long clip in pixels has more than 2^31 values.
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < num
    weights_ptr = table_ptr + 3 * (tl.load(row_ptr) if ROW_ON_DEVICE else row)
    w_cond = tl.load(weights_ptr)
    dt = tl.load(weights_ptr + 2)
    x = tl.load(x_ptr + i, mask=inside)
    v = w_cond * tl.load(v_cond_ptr + i, mask=inside).to(tl.float32)
    if HAS_UNCOND:
        v += tl.load(weights_ptr + 1) * tl.load(v_uncond_ptr + i, mask=inside).to(tl.float32)
    tl.store(out_ptr + i, x + dt * v, mask=inside)


def dtg_step(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> Tensor:
    out = torch.empty_like(x)
    num = x.numel()
    if num == 0:
        return out
    on_device = isinstance(row, Tensor)
    block = 65536 if interpreted() else 1024  # a program costs the interpreter milliseconds
    _dtg_step_kernel[(triton.cdiv(num, block),)](
        x,
        v_cond,
        v_cond if v_uncond is None else v_uncond,
        table,
        row if on_device else table,
        out,
        num,
        0 if on_device else row,
        HAS_UNCOND=v_uncond is not None,
        ROW_ON_DEVICE=on_device,
        BLOCK=block,
    )
    return out
