"""The limits of guidance and the orders of the solvers, on velocity fields with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.config import DTG
from dtg_restore.engine.sampler import sample
from dtg_restore.engine.schedule import Node, nodes
from dtg_restore.engine.types import StepInfo

Field = Callable[[Tensor, float], Tensor]
MEAN, SD = 0.4, 0.3  # of the Gaussian whose flow is known


def gaussian(x: Tensor, t: float) -> Tensor:
    """The exact velocity for x_0 ~ N(MEAN, SD^2)."""
    a = 1 - t
    return (t - a * SD**2) / (a**2 * SD**2 + t**2) * (x - a * MEAN) - MEAN


def exact(x: Tensor, t: float) -> Tensor:
    """Where the flow of `gaussian` takes x from t to 0: the quantile of x is kept."""
    a = 1 - t
    return MEAN + SD * (x - a * MEAN) / math.sqrt(a**2 * SD**2 + t**2)


def other(x: Tensor, t: float) -> Tensor:
    return torch.sin(3 * x) - 2 * t


def poison(x: Tensor, t: float) -> Tensor:
    return torch.full_like(x, math.nan)


def branches(cond: Field, uncond: Field, table: Sequence[Node]) -> Callable:
    """Both evaluations see the same x; a weight of zero is not evaluated."""

    def at(x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        n = table[index]
        return cond(x, n.t), uncond(x, n.tau) if n.w_uncond != 0 else None

    return at


def run(dtg: DTG, cond: Field, uncond: Field, x: Tensor) -> Tensor:
    table = nodes(dtg)
    return sample(branches(cond, uncond, table), x, table, dtg.solver)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("space", ["velocity", "x0"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_alpha_one_is_the_plain_conditional_step(x: Tensor, solver: str, space: str) -> None:
    dtg = DTG(alpha0=1.0, delta0=0.3, steps=5, solver=solver, space=space)
    plain = DTG(alpha0=1.0, delta0=0.0, steps=5, solver=solver)
    assert torch.equal(run(dtg, other, poison, x), run(plain, other, poison, x))


def test_delta_zero_alpha_one_is_sdedit_bit_for_bit(x: Tensor) -> None:
    got = run(DTG(t_start=0.5, steps=4, delta0=0.2, alpha0=3.0).sdedit(), other, poison, x)
    want = x
    for t in (0.5, 0.375, 0.25, 0.125):  # dt is a power of two: dt * v is exact, fused or not
        want = want - 0.125 * other(want, t)
    assert torch.equal(got, want)


def test_alpha_zero_is_the_lookahead_alone(x: Tensor) -> None:
    dtg = DTG(t_start=0.8, alpha0=0.0, delta0=0.25, schedule="constant", steps=4)
    got = run(dtg, gaussian, other, x)
    want = x
    for t in (0.8, 0.6, 0.4, 0.2):
        want = want - 0.2 * other(want, max(0.0, t - 0.25))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_alpha_zero_in_x0_space_is_the_lookahead_prediction_alone(x: Tensor) -> None:
    dtg = DTG(t_start=0.8, alpha0=0.0, delta0=0.1, schedule="constant", steps=4, space="x0")
    got = run(dtg, gaussian, other, x)
    want = x
    for t, t_next in ((0.8, 0.6), (0.6, 0.4), (0.4, 0.2), (0.2, 0.0)):
        tau = t - 0.1
        x0 = want - tau * other(want, tau)
        want = x0 + t_next / t * (want - x0)  # noise of level t is scaled down to t_next
    torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("space", ["velocity", "x0"])
def test_delta_zero_is_classifier_free_guidance(x: Tensor, space: str) -> None:
    got = run(DTG(t_start=0.8, steps=4, alpha0=2.5, space=space).cfg(), gaussian, other, x)
    want = x
    for t in (0.8, 0.6, 0.4, 0.2):
        v_cond, v_uncond = gaussian(want, t), other(want, t)
        want = want - 0.2 * (v_uncond + 2.5 * (v_cond - v_uncond))
    torch.testing.assert_close(got, want, rtol=0, atol=4e-6)


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_lookahead_guidance_by_hand(x: Tensor, schedule: str) -> None:
    dtg = DTG(t_start=0.6, steps=3, delta0=0.2, alpha0=2.0, schedule=schedule, kappa=4.0)
    want = x
    for s in (1.0, 2 / 3, 1 / 3):
        t = 0.6 * s
        f = s if schedule == "linear" else (math.exp(4 * s) - 1) / (math.exp(4) - 1)
        v_cond, v_uncond = gaussian(want, t), other(want, t - 0.2 * f)
        want = want - 0.2 * (v_uncond + (1 + f) * (v_cond - v_uncond))
    torch.testing.assert_close(run(dtg, gaussian, other, x), want, rtol=0, atol=4e-6)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_both_spaces_agree_without_lookahead(x: Tensor, solver: str) -> None:
    settings = {"delta0": 0.0, "alpha0": 2.0, "steps": 6, "solver": solver}
    velocity = run(DTG(**settings, space="velocity"), gaussian, other, x)
    x0 = run(DTG(**settings, space="x0"), gaussian, other, x)
    assert torch.equal(velocity, x0)
    ahead = run(DTG(**(settings | {"delta0": 0.2}), space="x0"), gaussian, other, x)
    assert not torch.allclose(velocity, ahead, atol=1e-3)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(x: Tensor, solver: str, order: int) -> None:
    errors = []
    for steps in (8, 16, 32, 64):
        dtg = DTG(t_start=0.9, steps=steps, solver=solver, delta0=0.0, alpha0=1.0)
        error = run(dtg, gaussian, poison, x) - exact(x, 0.9)
        errors.append(error.abs().max().item())
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert errors[-1] < 0.05
    assert all(order - 0.35 < rate < order + 0.6 for rate in rates), (errors, rates)


def test_heun_is_better_than_euler_for_the_same_evaluations(x: Tensor) -> None:
    want = exact(x, 0.9)
    euler = run(DTG(t_start=0.9, steps=31, alpha0=1.0), gaussian, poison, x) - want
    heun = run(DTG(t_start=0.9, steps=16, alpha0=1.0, solver="heun"), gaussian, poison, x) - want
    assert heun.abs().max() < 0.5 * euler.abs().max()


def test_heun_by_hand(x: Tensor) -> None:
    dtg = DTG(t_start=0.5, steps=2, solver="heun", delta0=0.1, alpha0=2.0, schedule="linear")

    def v(x: Tensor, t: float) -> Tensor:
        s = t / 0.5
        u = other(x, t - 0.1 * s)
        return u + (1 + s) * (gaussian(x, t) - u)

    ahead = x - 0.25 * v(x, 0.5)
    first = x - 0.125 * (v(x, 0.5) + v(ahead, 0.25))
    want = first - 0.25 * v(first, 0.25)  # the last step is Euler's
    torch.testing.assert_close(run(dtg, gaussian, other, x), want, rtol=0, atol=4e-6)


def test_elision_is_exact(x: Tensor) -> None:
    dtg = DTG(alpha0=1.0, delta0=0.2, steps=4)
    table = nodes(dtg)
    assert all(n.w_uncond == 0 for n in table)
    elided = sample(branches(other, poison, table), x, table)

    def both(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return other(x, table[index].t), gaussian(x, table[index].tau)

    assert torch.equal(sample(both, x, table), elided)


def test_input_is_left_alone_and_result_is_new(x: Tensor) -> None:
    before = x.clone()
    y = run(DTG(steps=3), gaussian, other, x)
    assert torch.equal(x, before)
    assert y.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert y.dtype == torch.float32


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_on_step_tells_what_was_done(x: Tensor, solver: str) -> None:
    dtg = DTG(t_start=0.4, steps=3, alpha0=2.0, delta0=0.1, schedule="linear", solver=solver)
    table, seen = nodes(dtg), []
    sample(branches(gaussian, other, table), x, table, solver, seen.append)
    assert seen == [StepInfo(i + 1, 3, n.t, n.tau, n.alpha, 2) for i, n in enumerate(table[:3])]
    table, seen = nodes(dtg.sdedit()), []
    sample(branches(gaussian, other, table), x, table, solver, seen.append)
    assert [info.num_branches for info in seen] == [1, 1, 1]


def test_an_error_in_on_step_ends_the_run(x: Tensor) -> None:
    calls = []

    def stop(info: StepInfo) -> None:
        calls.append(info.step)
        if info.step == 2:
            raise KeyboardInterrupt

    table = nodes(DTG(steps=5))
    with pytest.raises(KeyboardInterrupt):
        sample(branches(gaussian, other, table), x, table, "euler", stop)
    assert calls == [1, 2]
