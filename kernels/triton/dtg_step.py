"""Triton version of kernels/dtg_step.py: three reads and one write a value."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import interpreted


@triton.jit
def _dtg_step_kernel(
    x_ptr,
    v_cond_ptr,
    v_uncond_ptr,
    out_ptr,
    num,
    w_cond,
    w_uncond,
    dt,
    HAS_UNCOND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # int64: a long clip in pixels has more than 2^31 values.
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < num
    x = tl.load(x_ptr + i, mask=inside)
    v = w_cond * tl.load(v_cond_ptr + i, mask=inside).to(tl.float32)
    if HAS_UNCOND:
        v += w_uncond * tl.load(v_uncond_ptr + i, mask=inside).to(tl.float32)
    tl.store(out_ptr + i, x + dt * v, mask=inside)


def dtg_step(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, w_cond: float, w_uncond: float, dt: float
) -> Tensor:
    out = torch.empty_like(x)
    num = x.numel()
    if num == 0:
        return out
    block = 65536 if interpreted() else 1024  # a program costs the interpreter milliseconds
    _dtg_step_kernel[(triton.cdiv(num, block),)](
        x,
        v_cond,
        v_cond if v_uncond is None else v_uncond,
        out,
        num,
        float(w_cond),
        float(w_uncond),
        float(dt),
        HAS_UNCOND=v_uncond is not None,
        BLOCK=block,
    )
    return out
