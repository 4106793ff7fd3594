"""The annealing of a whole run in one call on the device of its flow times.

With s = t / t_start and the decay f (exponential, cosine, linear or constant), at every time

    tau      = max(t - delta_0 f(s), tau_floor t)          delta = t - tau
    alpha    = 1 + (alpha_0 - 1) f(s), exactly 1 within `ALPHA_ONE` of it
    w_cond   = alpha        w_uncond = 1 - alpha, in x0 space (1 - alpha) tau / t

and dt = t' - t to the next time.  engine/schedule.py has the same formula in plain floats and is
what the engine decides by; this is for whoever keeps a schedule on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance

SCHEDULES = ("exponential", "cosine", "linear", "constant")
SPACES = ("velocity", "x0")
ALPHA_ONE = 2.0**-20  # that of engine/schedule.py
MAX_TIMES = 4096  # of Triton's one program


def anneal(
    t: Tensor,
    *,
    t_start: float,
    delta0: float,
    alpha0: float,
    schedule: str = "exponential",
    kappa: float = 4.0,
    space: str = "velocity",
    tau_floor: float = 0.0,
    alpha_clip: bool = False,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """What guidance needs at every one of the n + 1 times `t`, and at every step between them.

    Parameters
    ----------
    t : (n + 1,) float64, contiguous; falling flow times in [0, t_start], the last usually 0
    t_start, delta0, alpha0, schedule, kappa, space, tau_floor, alpha_clip : as in the settings
        `DTG`; kappa > 0 is the rate of "exponential"
    implementation : its name, or None for the best one on the device of `t`

    Returns
    -------
    annealed : (n + 1, 3) float32; columns delta, alpha and tau
    table : (n, 3) float32; columns w_cond, w_uncond and dt, as `dtg_step` takes it

    Both are new, contiguous, on the device of `t`, computed in float64 and rounded once.

    Raises
    ------
    ValueError : `t`, t_start, kappa, the schedule or the space
    KernelChoiceError : the implementation that was asked for cannot run
    """
    if t.dtype != torch.float64 or t.ndim != 1:
        raise ValueError(f"t must be (n + 1,) float64, got {tuple(t.shape)} {t.dtype}")
    for name, value, known in (("schedule", schedule, SCHEDULES), ("space", space, SPACES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}: known are {', '.join(known)}")
    if not (t_start > 0 and kappa > 0):
        raise ValueError(f"t_start and kappa must be positive, got {t_start} and {kappa}")
    numbers = (t_start, delta0, alpha0, kappa, tau_floor)
    return OP(t, *numbers, schedule, space, alpha_clip, name=implementation)


def reference(
    t: Tensor,
    t_start: float,
    delta0: float,
    alpha0: float,
    kappa: float,
    tau_floor: float,
    schedule: str,
    space: str,
    alpha_clip: bool,
) -> tuple[Tensor, Tensor]:
    f = _decay(schedule, t / t_start, kappa)
    tau = torch.maximum(t - delta0 * f, tau_floor * t)
    alpha = 1 + (alpha0 - 1) * f
    if alpha_clip:
        alpha = torch.minimum(alpha, _alpha_max(t, tau))
    alpha = torch.where((alpha - 1).abs() <= ALPHA_ONE, 1.0, alpha)
    w_uncond = 1 - alpha
    if space == "x0":
        w_uncond = w_uncond * torch.where(t == 0, 1.0, tau / t)
    annealed = torch.stack((t - tau, alpha, tau), dim=1)
    table = torch.stack((alpha[:-1], w_uncond[:-1], t[1:] - t[:-1]), dim=1)
    return annealed.float(), table.float()


def _decay(schedule: str, s: Tensor, kappa: float) -> Tensor:
    if schedule == "exponential":
        return torch.expm1(kappa * s) / math.expm1(kappa)
    if schedule == "cosine":
        return (1 - torch.cos(math.pi * s)) / 2
    return s if schedule == "linear" else torch.ones_like(s)


def _alpha_max(t: Tensor, tau: Tensor) -> Tensor:
    gap = t**2 - tau**2
    limit = ((1 - tau) ** 2 * t**2 / (1 - t) ** 2 - tau**2) / gap
    return torch.where((gap > 0) & (t < 1), limit, math.inf)


def _load_triton() -> Callable[..., tuple[Tensor, Tensor]]:
    from .triton.anneal import anneal as triton_anneal

    return partial(triton_anneal, schedules=SCHEDULES, alpha_one=ALPHA_ONE)


def _triton_unsupported(t: Tensor, *_: Any) -> list[str]:
    reasons = []
    if t.device.type != triton_kernels.device_type():
        reasons.append(f"t is on {t.device}, not on {triton_kernels.device_type()}")
    if not t.is_contiguous():
        reasons.append("t is not contiguous")
    if len(t) > MAX_TIMES:
        reasons.append(f"{len(t)} times are more than the {MAX_TIMES} of one program")
    return reasons


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    num_steps: int,
    schedule: str = "exponential",
    space: str = "velocity",
    alpha_clip: bool = False,
) -> tuple[Any, ...]:
    """`dtype` is that of the result."""
    t = torch.linspace(0.6, 0.0, num_steps + 1, dtype=torch.float64, device=device)
    return t, 0.6, 0.15, 2.0, 4.0, 0.25, schedule, space, alpha_clip


OP = Op(
    name="anneal",
    formula="delta, alpha, tau at all times; w_cond, w_uncond, dt of all steps",
    reference=reference,
    faster=(Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),),
    # Another exp or cos in float64 shows only where it decides the rounding to float32.
    tolerance={torch.float32: Tolerance(rtol=2.0**-23, atol=2.0**-40)},
    cases=(
        Case("odd sizes", partial(_inputs, num_steps=7, space="x0")),
        Case("one step", partial(_inputs, num_steps=1, alpha_clip=True)),
        Case("empty", partial(_inputs, num_steps=-1)),
        Case("cosine", partial(_inputs, num_steps=20, schedule="cosine", alpha_clip=True)),
        Case("linear", partial(_inputs, num_steps=20, schedule="linear", space="x0")),
        Case("constant", partial(_inputs, num_steps=20, schedule="constant", space="x0")),
        Case("production", partial(_inputs, num_steps=50, alpha_clip=True)),
    ),
)
