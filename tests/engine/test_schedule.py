"""The schedules are pure functions of floats: every value has a closed form to be held to."""

from __future__ import annotations

import itertools
import math

import pytest

from dtg_restore.engine.config import DTG, SCHEDULES
from dtg_restore.engine.schedule import (
    alpha_max,
    decay,
    flow_times,
    node,
    nodes,
    snr,
    snr_eff,
    unstable,
)

ANNEALED = [name for name in SCHEDULES if name != "constant"]
S = [i / 40 for i in range(41)]
PAIRS = [(t, tau) for t in (0.05, 0.2, 0.5, 0.9) for tau in (0.0, t / 4, t / 2, 0.95 * t)]


@pytest.mark.parametrize("kappa", [0.01, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("schedule", ANNEALED)
def test_decay_ends_and_rises(schedule: str, kappa: float) -> None:
    assert decay(schedule, 0.0, kappa) == 0
    assert decay(schedule, 1.0, kappa) == pytest.approx(1, abs=1e-15)
    values = [decay(schedule, s, kappa) for s in S]
    assert all(a < b for a, b in itertools.pairwise(values))


def test_decay_closed_forms() -> None:
    for s in S:
        want = (math.exp(4 * s) - 1) / (math.exp(4) - 1)
        assert decay("exponential", s, 4.0) == pytest.approx(want, abs=1e-12)
        assert decay("cosine", s, 4.0) == pytest.approx(math.sin(math.pi * s / 2) ** 2, abs=1e-12)
        assert decay("linear", s, 4.0) == s
        assert decay("constant", s, 4.0) == 1
    assert decay("exponential", 0.5, 4.0) == pytest.approx(0.11920292202211755, rel=1e-12)


def test_exponential_becomes_linear_as_kappa_vanishes() -> None:
    for s in S:  # exp(kappa s) - 1 would have lost six digits here
        assert decay("exponential", s, 3.3e-9) == pytest.approx(s, abs=1e-9)


def test_decay_names_the_unknown_schedule() -> None:
    with pytest.raises(ValueError, match=r"'steep'.*exponential"):
        decay("steep", 0.5, 4.0)


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("t_start", [0.12, 0.5, 1.0])
def test_flow_times_without_shift_are_even(num_steps: int, t_start: float) -> None:
    times = flow_times(num_steps, t_start)
    want = [t_start * (1 - i / num_steps) for i in range(num_steps + 1)]
    assert times == pytest.approx(want, abs=1e-15)
    assert times[0] == t_start and times[-1] == 0.0  # exactly


@pytest.mark.parametrize("shift", [0.2, 3.0, 8.0])
@pytest.mark.parametrize("t_start", [0.12, 0.5, 1.0])
def test_flow_times_with_shift(t_start: float, shift: float) -> None:
    times = flow_times(10, t_start, shift)
    assert times[0] == t_start and times[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(times))
    # Undone, they are even: u = t / (shift - (shift - 1) t).
    even = [t / (shift - (shift - 1) * t) for t in times]
    gaps = [a - b for a, b in itertools.pairwise(even)]
    assert gaps == pytest.approx([even[0] / 10] * 10, rel=1e-9)
    middle = times[5] / t_start
    assert middle > 0.5 if shift > 1 else middle < 0.5


def test_shifted_times_from_one_are_those_of_the_full_run() -> None:
    assert flow_times(4, 1.0, 3.0) == pytest.approx([1, 9 / 10, 3 / 4, 1 / 2, 0], abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("delta0", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("t_start", [0.1, 0.5, 1.0])
def test_lookahead_never_passes_zero(t_start: float, delta0: float, schedule: str) -> None:
    for n in nodes(DTG(t_start=t_start, delta0=delta0, schedule=schedule, steps=9)):
        assert 0 <= n.tau <= n.t
        assert n.t - n.tau <= delta0 + 1e-15


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nodes_follow_the_formulas(schedule: str) -> None:
    dtg = DTG(t_start=0.6, steps=6, delta0=0.1, alpha0=2.5, schedule=schedule, kappa=3.0)
    table = nodes(dtg)
    assert [n.t for n in table] == flow_times(6, 0.6)
    for n in table:
        f = decay(schedule, n.t / 0.6, 3.0)
        assert n.tau == pytest.approx(max(0, n.t - 0.1 * f), abs=1e-15)
        assert n.alpha == pytest.approx(1 + 1.5 * f, abs=1e-15)
        assert (n.w_cond, n.w_uncond) == (n.alpha, 1 - n.alpha)
    assert table[0].tau == pytest.approx(0.5) and table[0].alpha == pytest.approx(2.5)
    if schedule != "constant":
        assert table[-1].alpha == 1 and table[-1].tau == 0 == table[-1].t


@pytest.mark.parametrize("floor", [0.25, 0.9, 1.0])
def test_tau_floor(floor: float) -> None:
    table = nodes(DTG(t_start=0.4, delta0=0.3, schedule="constant", tau_floor=floor, steps=5))
    for n in table:
        assert n.tau == pytest.approx(max(n.t - 0.3, floor * n.t), abs=1e-15)
    if floor == 1:  # no lookahead is left
        assert all(n.tau == n.t for n in table)


@pytest.mark.parametrize(("t", "tau"), PAIRS)
def test_alpha_max_is_where_the_noise_levels_meet(t: float, tau: float) -> None:
    limit = alpha_max(t, tau)
    assert limit >= 1  # the plain conditional step is always stable
    assert snr_eff(t, tau, limit) == pytest.approx(snr(t), rel=1e-9)
    for share in (0.0, 0.5, 0.999):
        assert snr_eff(t, tau, share * limit) > snr(t)
    for share in (1.001, 2.0):
        assert snr_eff(t, tau, share * limit) < snr(t)


def test_alpha_max_by_hand() -> None:
    # t = 1/2: SNR_t = 1; tau = 1/4: (9/16 - 1/16) / (4/16 - 1/16) = 8/3
    assert alpha_max(0.5, 0.25) == pytest.approx(8 / 3, rel=1e-14)
    assert snr_eff(0.5, 0.25, 1.0) == pytest.approx((9 / 16) / (1 / 4), rel=1e-14)
    assert snr(0.25) == pytest.approx(9, rel=1e-14)


def test_noise_levels_at_the_ends() -> None:
    assert snr(0.0) == math.inf and snr(1.0) == 0
    assert snr_eff(0.3, 0.0, 0.0) == math.inf  # the lookahead alone, to no noise at all
    assert alpha_max(0.3, 0.3) == math.inf  # both branches at one time: no alpha adds noise
    assert alpha_max(1.0, 0.5) == math.inf  # less signal than none cannot be
    assert alpha_max(0.0, 0.0) == math.inf


@pytest.mark.parametrize("space", ["velocity", "x0"])
def test_alpha_clip_clamps_and_leaves_no_warning(space: str) -> None:
    wild = DTG(t_start=0.3, delta0=0.25, alpha0=9.0, schedule="linear", steps=8, space=space)
    assert unstable(nodes(wild))
    clipped = [node(DTG(**(vars(wild) | {"alpha_clip": True})), n.t) for n in nodes(wild)]
    assert not unstable(clipped)
    for before, after in zip(nodes(wild), clipped, strict=True):
        assert after.alpha == min(before.alpha, alpha_max(before.t, before.tau))
        assert after.w_cond == after.alpha  # the weights are those of the clamped alpha
        ratio = 1 if space == "velocity" or after.t == 0 else after.tau / after.t
        assert after.w_uncond == pytest.approx((1 - after.alpha) * ratio, abs=1e-15)
    assert any(
        after.alpha < before.alpha for before, after in zip(nodes(wild), clipped, strict=True)
    )


def test_unstable_names_exactly_the_nodes_above_the_limit() -> None:
    table = nodes(DTG(t_start=0.3, delta0=0.25, alpha0=5.0, schedule="linear", steps=8))
    want = [n for n in table if snr_eff(n.t, n.tau, n.alpha) < snr(n.t) * (1 - 1e-9)]
    assert want and len(want) < len(table)
    assert unstable(table) == want
    assert unstable(nodes(DTG(delta0=0.0, alpha0=9.0))) == []


@pytest.mark.parametrize(("t", "tau"), [(0.5, 0.3), (0.2, 0.05), (0.9, 0.9), (0.4, 0.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 3.0])
def test_x0_space_weights_are_the_extrapolated_prediction(
    t: float, tau: float, alpha: float
) -> None:
    x, v_cond, v_uncond = 0.3, -1.7, 0.9
    x0_cond, x0_uncond = x - t * v_cond, x - tau * v_uncond
    x0_dtg = x0_uncond + alpha * (x0_cond - x0_uncond)
    dtg = DTG(
        t_start=t, delta0=t - tau, alpha0=alpha, schedule="constant", space="x0", tau_floor=0.0
    )
    n = node(dtg, t)
    assert n.tau == pytest.approx(tau, abs=1e-15)
    got = n.w_cond * v_cond + n.w_uncond * v_uncond
    assert got == pytest.approx((x - x0_dtg) / t, abs=1e-12)


def test_both_spaces_have_the_same_weights_without_lookahead() -> None:
    for space in ("velocity", "x0"):
        table = nodes(DTG(delta0=0.0, alpha0=3.0, space=space, steps=5))
        assert [n.w_uncond for n in table] == [1 - n.alpha for n in table]


def test_cfg_and_sdedit_are_settings() -> None:
    dtg = DTG(t_start=0.4, steps=5, delta0=0.2, alpha0=2.5)
    for n in nodes(dtg.cfg()):
        assert (n.tau, n.alpha, n.w_cond, n.w_uncond) == (n.t, 2.5, 2.5, -1.5)
    for n in nodes(dtg.sdedit()):
        assert (n.tau, n.alpha, n.w_cond, n.w_uncond) == (n.t, 1.0, 1.0, 0.0)
