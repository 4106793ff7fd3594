"""Triton version of kernels/anneal.py: one program, in fp64."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import power_of_2


@triton.jit
def _expm1(x):
    """exp(x) - 1 without loss of digits near 0 (Kahan)."""
    u = tl.exp(x)
    exact = (u - 1) * x / tl.where(u == 1, 1.0, tl.log(u))
    return tl.where(u == 1, x, exact)


@triton.jit
def _anneal_kernel(
    t_ptr,
    annealed_ptr,
    table_ptr,
    num,
    # Unannotated, floats would arrive rounded to fp32.
    t_start: tl.float64,
    delta0: tl.float64,
    alpha0: tl.float64,
    kappa: tl.float64,
    decay_scale: tl.float64,
    tau_floor: tl.float64,
    SCHEDULE: tl.constexpr,
    X0_SPACE: tl.constexpr,
    ALPHA_CLIP: tl.constexpr,
    ALPHA_ONE: tl.constexpr,
    PI: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.arange(0, BLOCK)
    inside, is_step = i < num, i < num - 1
    t = tl.load(t_ptr + i, mask=inside, other=0.0)
    t_next = tl.load(t_ptr + i + 1, mask=is_step, other=0.0)
    s = t / t_start
    if SCHEDULE == 0:  # the places in kernels/anneal.py's SCHEDULES
        f = _expm1(kappa * s) * decay_scale
    elif SCHEDULE == 1:
        f = (1 - tl.cos(PI * s)) / 2
    elif SCHEDULE == 2:
        f = s
    else:
        f = tl.full([BLOCK], 1.0, tl.float64)
    tau = tl.maximum(t - delta0 * f, tau_floor * t)
    alpha = 1 + (alpha0 - 1) * f
    if ALPHA_CLIP:
        gap = t * t - tau * tau
        is_limited = (gap > 0) & (t < 1)
        ratio = (1 - tau) * t / tl.where(is_limited, 1 - t, 1.0)
        limit = (ratio * ratio - tau * tau) / tl.where(is_limited, gap, 1.0)
        alpha = tl.where(is_limited, tl.minimum(alpha, limit), alpha)
    alpha = tl.where(tl.abs(alpha - 1) <= ALPHA_ONE, 1.0, alpha)
    w_uncond = 1 - alpha
    if X0_SPACE:
        w_uncond *= tl.where(t == 0, 1.0, tau / tl.where(t == 0, 1.0, t))
    tl.store(annealed_ptr + 3 * i, (t - tau).to(tl.float32), mask=inside)
    tl.store(annealed_ptr + 3 * i + 1, alpha.to(tl.float32), mask=inside)
    tl.store(annealed_ptr + 3 * i + 2, tau.to(tl.float32), mask=inside)
    tl.store(table_ptr + 3 * i, alpha.to(tl.float32), mask=is_step)
    tl.store(table_ptr + 3 * i + 1, w_uncond.to(tl.float32), mask=is_step)
    tl.store(table_ptr + 3 * i + 2, (t_next - t).to(tl.float32), mask=is_step)


def anneal(
    t: Tensor,
    t_start: float,
    delta0: float,
    alpha0: float,
    kappa: float,
    tau_floor: float,
    schedule: str,
    space: str,
    alpha_clip: bool,
    *,
    schedules: tuple[str, ...],
    alpha_one: float,
) -> tuple[Tensor, Tensor]:
    num = len(t)
    annealed = torch.empty(num, 3, device=t.device)
    table = torch.empty(max(num - 1, 0), 3, device=t.device)
    if num == 0:
        return annealed, table
    _anneal_kernel[(1,)](
        t,
        annealed,
        table,
        num,
        *(t_start, delta0, alpha0, kappa, 1 / math.expm1(kappa), tau_floor),
        SCHEDULE=schedules.index(schedule),
        X0_SPACE=space == "x0",
        ALPHA_CLIP=alpha_clip,
        ALPHA_ONE=alpha_one,
        PI=math.pi,
        BLOCK=power_of_2(num),
    )
    return annealed, table
