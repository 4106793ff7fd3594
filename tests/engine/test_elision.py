"""Elision: exact where the weight is zero, estimated and bounded elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.config import DTG
from dtg_restore.engine.elision import Elision, weights
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sampler import sample
from dtg_restore.engine.schedule import ALPHA_ONE, Node, node, nodes

Clip = Callable[..., Tensor]
V_COND = torch.tensor([3.0, 0.0, 4.0])
V_UNCOND = torch.tensor([3.0, 1.0, 4.0])
CLIP = (8, 24, 16)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item() + 1e-20)


def guided(at: Node) -> Tensor:
    return at.w_cond * V_COND + at.w_uncond * V_UNCOND


@pytest.mark.parametrize("space", ["velocity", "x0"])
@pytest.mark.parametrize("alpha0", [0.3, 2.0])
def test_the_estimate_is_the_error_of_leaving_out(space: str, alpha0: float) -> None:
    """At a node of the same gap as the measured one, it is the relative error itself."""
    dtg = DTG(t_start=0.8, delta0=0.3, alpha0=alpha0, space=space, steps=4)
    here = nodes(dtg)[0]
    elision = Elision(1.0)
    assert not elision.leaves_out(here)
    elision.measure(here, V_COND, V_UNCOND)
    assert elision.leaves_out(here)
    want = (guided(here) - V_COND).norm() / guided(here).norm()
    assert elision.largest_error == pytest.approx(want.item(), rel=1e-5)


def test_leaving_out_in_x0_space_takes_over_the_prediction() -> None:
    """x0_uncond := x0_cond, with v_uncond = (t / tau) v_cond, gives the conditional velocity."""
    at = node(DTG(t_start=0.8, delta0=0.3, alpha0=2.0, space="x0"), 0.7)
    assert 0 < at.tau < at.t
    replaced = at.w_cond * V_COND + at.w_uncond * (at.t / at.tau) * V_COND
    torch.testing.assert_close(replaced, V_COND)
    assert weights(at, evaluated=False) == (1.0, 0.0)
    assert weights(at, evaluated=True) == (at.w_cond, at.w_uncond)


def test_a_branch_without_weight_keeps_the_weight_of_the_other() -> None:
    """In x0 space at tau = 0 the unconditional prediction is x itself: that is no elision."""
    at = node(DTG(t_start=0.2, delta0=0.2, alpha0=2.0, schedule="constant", space="x0"), 0.2)
    assert (at.tau, at.w_uncond) == (0, 0)
    assert weights(at, evaluated=False) == (2.0, 0.0)
    elision = Elision(0.0)
    assert elision.leaves_out(at)
    assert (elision.saved, elision.weightless, elision.largest_error) == (0, 1, 0.0)


@pytest.mark.parametrize(
    ("tolerance", "decisions"), [(0.0, [0, 0]), (0.02, [0, 0]), (0.03, [0, 1])]
)
def test_tolerance(tolerance: float, decisions: list[int]) -> None:
    """The gap is 1 / |guided|, about 1 / 5.1; alpha - 1 is 1 and then 0.119."""
    table = nodes(DTG(t_start=0.5, delta0=0.1, alpha0=2.0, steps=2))
    elision, got = Elision(tolerance), []
    for here in table[:2]:
        got.append(elision.leaves_out(here))
        if not got[-1]:
            elision.measure(here, V_COND, V_UNCOND)
    assert got == [bool(d) for d in decisions]


def test_nothing_is_left_out_before_something_is_known() -> None:
    elision, here = Elision(1.0), nodes(DTG())[5]
    assert not elision.leaves_out(here)
    elision.measure(here, V_COND, V_UNCOND)
    assert elision.leaves_out(here)
    elision.begin()
    assert not elision.leaves_out(here)


def test_a_velocity_that_is_no_number_is_not_hidden() -> None:
    elision, here = Elision(1.0), nodes(DTG())[5]
    elision.measure(here, torch.full((3,), math.nan), V_UNCOND)
    assert not elision.leaves_out(here)


def test_alpha_reaches_one_exactly() -> None:
    dtg = DTG(t_start=0.5, alpha0=2.0, kappa=30.0, steps=20)
    table = nodes(dtg)
    exact = [n for n in table if n.alpha == 1]
    assert 1 < len(exact) < 20 and all(n.w_uncond == 0 and n.w_cond == 1 for n in exact)
    assert all(n.alpha - 1 > ALPHA_ONE for n in table[: -len(exact)])


def test_exact_elision_equals_never_eliding() -> None:
    """Bit for bit, also where alpha has been set to 1 and the weight is zero."""
    table = nodes(DTG(t_start=0.5, alpha0=2.0, kappa=30.0, steps=20, delta0=0.1))
    x = torch.randn(1, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    elision, skipped = Elision(0.0), []

    def both(x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        return torch.sin(3 * x) - table[index].t, torch.cos(x) - table[index].tau

    def elided(x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        v_cond, v_uncond = both(x, index)
        skipped.append(elision.leaves_out(table[index]))
        return v_cond, None if skipped[-1] else v_uncond

    assert torch.equal(sample(both, x, table), sample(elided, x, table))
    assert 1 < sum(skipped) < 20


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_run_with_elision_is_near_the_one_without(
    load: Callable[..., Restorer], clip: Clip, solver: str
) -> None:
    exact = load(steps=6, t_start=0.3, alpha0=2.0, solver=solver, chunk=8)
    frames = clip(*CLIP)
    want = exact.restore(frames)
    near, far = (exact.configure(elide_tol=tol).restore(frames) for tol in (0.01, 0.3))
    assert not torch.equal(near, want)
    assert psnr(near, want) > psnr(far, want) + 3
    assert psnr(near, want) > 45


def test_report(load: Callable[..., Restorer], clip: Clip, pictures: Any, tmp_path: Path) -> None:
    source, restorer = pictures(clip(*CLIP)), load(steps=6, t_start=0.3, alpha0=2.0)
    plain = restorer.restore_file(source, tmp_path / "plain")
    assert plain["elision"] == {
        "tolerance": 0.0, "saved": 0, "weightless": 0, "largest_error": 0.0
    }  # fmt: skip
    report = restorer.configure(elide_tol=0.05).restore_file(source, tmp_path / "elided")
    made, elision = report["evaluations"], report["elision"]
    assert 0 < elision["saved"] == made["cond"] - made["uncond"] < made["cond"]
    assert 0 < elision["largest_error"] < 0.05
    assert made["cond"] == plain["evaluations"]["cond"]


def test_split_is_unsplit(
    load: Callable[..., Restorer], clip: Clip, pictures: Any, tmp_path: Path
) -> None:
    source, restorer = pictures(clip(*CLIP)), load(steps=6, elide_tol=0.05)
    restorer.restore_file(source, tmp_path / "whole")
    for first, last in ((0, 2), (3, 7)):
        restorer.restore_file(source, tmp_path / "parts", frames=(first, last), overwrite=True)
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name
