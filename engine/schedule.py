"""Flow times, annealing and the noise level of lookahead guidance, as pure functions of floats.

Rectified flow: x_t = (1 - t) x_0 + t eps, t in [0, 1], t = 1 is noise.  With s = t / t_start and a
decay f with f(1) = 1 and f(0) = 0,

    delta(t) = delta_0 f(s)        alpha(t) = 1 + (alpha_0 - 1) f(s)        tau = t - delta(t)

    sigma_eff^2 = sigma_tau^2 + alpha (sigma_t^2 - sigma_tau^2)
    SNR_eff     = a_tau^2 / sigma_eff^2

with sigma_t = t and a_t = 1 - t.

An annealed alpha within `ALPHA_ONE` of 1 is exactly 1, so that the unconditional branch has no
weight there: an exponential decay gets arbitrarily near 1, and only t = 0 would reach it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .config import DTG

DECAYS = ("exponential", "cosine", "linear", "constant")


# What this changes in an Euler step, |dt| |alpha - 1| |v_cond - v_uncond|, is at most half a unit
# in the last place of an fp32 state of size 1 as long as |dt| |v_cond - v_uncond| <= 1 / 16.
ALPHA_ONE = 2.0**-20


class Node(NamedTuple):
    """One flow time of a run and everything that guidance needs there.

    The guided velocity is `w_cond * v(x, t | cond) + w_uncond * v(x, tau | uncond)`.
    """

    t: float
    tau: float
    alpha: float
    w_cond: float
    w_uncond: float


def decay(schedule: str, s: float, kappa: float) -> float:
    """f(s) for s in [0, 1]: 1 at s = 1 and, but for "constant", 0 at s = 0."""
    if schedule == "exponential":
        return math.expm1(kappa * s) / math.expm1(kappa)
    if schedule == "cosine":
        return (1 - math.cos(math.pi * s)) / 2
    if schedule == "linear":
        return s
    if schedule == "constant":
        return 1.0
    raise ValueError(f"unknown schedule {schedule!r}: known are {', '.join(DECAYS)}")


def flow_times(num_steps: int, t_start: float, shift: float = 1.0) -> list[float]:
    """`num_steps + 1` times from `t_start` down to 0, exactly.

    They are evenly spaced before the shift t -> shift t / (1 + (shift - 1) t), which keeps 0 and 1
    and, above 1, spends more of the steps at high noise.
    """
    first = t_start / (shift - (shift - 1) * t_start)  # the inverse shift of t_start
    even = [first * (num_steps - i) / num_steps for i in range(num_steps + 1)]
    times = [shift * u / (1 + (shift - 1) * u) for u in even]
    return [t_start, *times[1:-1], 0.0]


def snr(t: float) -> float:
    """Signal to noise (1 - t)^2 / t^2; infinite at t = 0."""
    return math.inf if t == 0 else ((1 - t) / t) ** 2


def snr_eff(t: float, tau: float, alpha: float) -> float:
    """Effective signal to noise of the guided prediction; infinite where no noise is left."""
    variance = tau**2 + alpha * (t**2 - tau**2)
    return math.inf if variance <= 0 else (1 - tau) ** 2 / variance


def alpha_max(t: float, tau: float) -> float:
    """The largest alpha for which SNR_eff >= SNR_t; infinite where tau = t (any alpha)."""
    gap = t**2 - tau**2
    if gap <= 0:
        return math.inf
    return ((1 - tau) ** 2 / snr(t) - tau**2) / gap if t < 1 else math.inf


def node(dtg: DTG, t: float) -> Node:
    """delta, tau, alpha and the weights of the branches at time t of a run with settings `dtg`."""
    f = decay(dtg.schedule, t / dtg.t_start, dtg.kappa)
    tau = max(t - dtg.delta0 * f, dtg.tau_floor * t)
    alpha = 1 + (dtg.alpha0 - 1) * f
    if dtg.alpha_clip:
        alpha = min(alpha, alpha_max(t, tau))
    if abs(alpha - 1) <= ALPHA_ONE:
        alpha = 1.0
    # In x0 space x_t - t v_dtg = x0_dtg; the unconditional x0 is x_t - tau v_uncond.
    ratio = 1.0 if dtg.space == "velocity" or t == 0 else tau / t
    return Node(t, tau, alpha, alpha, (1 - alpha) * ratio)


def nodes(dtg: DTG) -> list[Node]:
    """The `steps + 1` nodes of a run, from t_start to 0."""
    return [node(dtg, t) for t in flow_times(dtg.steps, dtg.t_start, dtg.shift)]


def unstable(nodes_: list[Node]) -> list[Node]:
    """The nodes whose alpha lies above `alpha_max`: guidance adds noise there."""
    return [n for n in nodes_ if n.alpha > alpha_max(n.t, n.tau) + 1e-9]
