"""Reuse and step caching: exactly off at 0, and honest about their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.bench.material import read
from dtg_restore.engine.backbones.facts import MINI
from dtg_restore.engine.backbones.mini import PHASES
from dtg_restore.engine.config import DTG
from dtg_restore.engine.elision import Elision
from dtg_restore.engine.guidance import TiledBranches
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.reuse import Drift, Reuse
from dtg_restore.engine.schedule import Node, nodes

Clip = Callable[..., Tensor]
Steps = list[tuple[Tensor, Tensor]]
DEMO = Path(__file__).parents[2] / "assets" / "demo.mp4"
RUN = {"t_start": 0.4, "steps": 12, "alpha0": 2.0, "space": "velocity"}


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item() + 1e-20)


def linear(table: list[Node]) -> Steps:
    """v_cond linear in t, and a gap that is delta times a constant: reuse makes no error."""
    a, b, gap = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).unbind()
    return [(a + n.t * b, a + n.t * b + (n.t - n.tau) * gap) for n in table]


def replay(reuse: Reuse, table: list[Node], steps: Steps) -> list[tuple[int, float]]:
    """Evaluations and true relative error of the guided velocity at every node of a given run."""
    found = []
    reuse.begin()
    for i, (node, (v_cond, v_uncond)) in enumerate(zip(table[:-1], steps, strict=False)):
        names = reuse.needed(i, node)
        got, other = reuse.complete(i, node, [v_cond, v_uncond][: len(names)])
        want = node.w_cond * v_cond + node.w_uncond * v_uncond
        have = got if other is None else node.w_cond * got + node.w_uncond * other
        found.append((len(names), ((have - want).norm() / want.norm()).item()))
    return found


@pytest.fixture(scope="module")
def recorded() -> tuple[list[Node], Steps]:
    """Every velocity of an exact run of the embedded model."""
    torch.set_num_threads(1)
    frames = read(DEMO, 4)[..., 32:80, 64:112]
    restorer = Restorer.load(sr="none", device="cpu", chunk=4, tile=(48, 48), **RUN)
    steps: Steps = []

    def spy(branches: TiledBranches, x: Tensor, index: int) -> Any:
        steps.append(plain(branches, x, index))
        return steps[-1]

    plain = TiledBranches.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TiledBranches, "__call__", spy)
        restorer.restore(frames)
    assert restorer.backbone is not None
    return nodes(restorer.config.dtg(restorer.backbone.facts.defaults)), steps


def test_a_proportional_gap_is_reused_without_error() -> None:
    table = nodes(DTG(t_start=0.5, steps=6, alpha0=2.0, delta0=0.2))
    found = replay(Reuse(Elision(0.0), reuse_tol=1e-3), table, linear(table))
    assert [made for made, _ in found] == [2, 2, 1, 1, 1, 1]
    assert max(error for _, error in found) < 1e-5


def test_without_lookahead_the_gap_is_taken_as_it_is() -> None:
    table = nodes(DTG(t_start=0.5, steps=4, alpha0=2.0, delta0=0.0))
    steps = [(c, c + 1) for c, _ in linear(table)]
    found = replay(Reuse(Elision(0.0), reuse_tol=1e-3), table, steps)
    assert [made for made, _ in found] == [2, 2, 1, 1] and found[-1][1] < 1e-6


def test_the_expected_change_of_a_prediction_grows_with_the_distance() -> None:
    """Changes of the x0-prediction, t times those of the velocity, in proportion to the time."""
    drift = Drift()
    assert drift.error(0, 0.5) == math.inf
    drift.keep(0, 0.5, torch.zeros(4))
    assert drift.error(1, 0.4) == math.inf
    drift.keep(1, 0.4, torch.ones(4))  # a change of norm 2 at t = 0.4
    assert drift.error(2, 0.3) == pytest.approx(2 * 0.4 / 0.3)
    assert drift.error(3, 0.2) == pytest.approx(2 * 2 * 0.4 / 0.2)
    assert drift.error(1, 0.4) == pytest.approx(2)  # heun: the same node, another x
    drift.keep(1, 0.4, torch.full((4,), 9.0))
    assert drift.error(2, 0.3) == pytest.approx(2 * 0.4 / 0.3)


def test_only_nodes_of_the_same_cut_are_compared() -> None:
    drift = Drift(cycle=2)
    for index, t in enumerate((0.5, 0.4, 0.3)):
        assert drift.error(index, t) == math.inf
        drift.keep(index, t, torch.full((4,), float(index)))
    assert torch.equal(drift.value(3), torch.ones(4))
    assert drift.error(3, 0.2) == pytest.approx(4 * 0.3 / 0.2)  # |2 - 0| twice, as distant


def test_the_cycle_of_mini_is_that_of_its_phases() -> None:
    assert MINI.cycle == len(PHASES)


def test_nothing_is_taken_over_into_the_next_chunk() -> None:
    table = nodes(DTG(t_start=0.5, steps=6, alpha0=2.0, delta0=0.2))
    reuse = Reuse(Elision(0.0), reuse_tol=1.0, cache_tol=1.0)
    first, second = (replay(reuse, table, linear(table)) for _ in range(2))
    assert first == second
    assert first[0][0] == first[1][0] == 2 and first[2][0] == 0


def test_nothing_is_taken_over_from_another_expert() -> None:
    table = nodes(DTG(t_start=0.5, steps=10, alpha0=2.0, delta0=0.0))
    reuse = Reuse(Elision(0.0), reuse_tol=1.0, cache_tol=1.0, experts=(0.0, 0.3))
    made = [made for made, _ in replay(reuse, table, linear(table))]
    assert [n.t >= 0.3 for n in table[:-1]] == [True] * 5 + [False] * 5
    assert made == [2, 2, 0, 0, 0] * 2


def test_a_velocity_that_is_no_number_is_not_hidden() -> None:
    table = nodes(DTG(t_start=0.5, steps=4, alpha0=2.0))
    steps = [(torch.full((3,), math.nan), torch.ones(3)) for _ in table]
    reuse = Reuse(Elision(0.0), reuse_tol=1.0, cache_tol=1.0)
    assert [made for made, _ in replay(reuse, table, steps)] == [2, 2, 2, 2]


@pytest.mark.parametrize("cycle", [1, 4])
@pytest.mark.parametrize(("reuse_tol", "cache_tol"), [(0.3, 0.0), (0.0, 0.6), (0.1, 0.6)])
def test_the_estimate_bounds_the_error_of_mini(
    recorded: tuple[list[Node], Steps], reuse_tol: float, cache_tol: float, cycle: int
) -> None:
    """The true error is at most 1.5 times the estimate, and the estimate at most 10 times it."""
    table, steps = recorded
    reuse = Reuse(Elision(0.0), reuse_tol, cache_tol, cycle)
    largest, ratios = reuse.largest_error, []
    reuse.begin()
    for i, (node, (v_cond, v_uncond)) in enumerate(zip(table[:-1], steps, strict=True)):
        largest.update(dict.fromkeys(largest, 0.0))
        names = reuse.needed(i, node)
        got, other = reuse.complete(i, node, [v_cond, v_uncond][: len(names)])
        if len(names) < 2:
            assert other is not None
            wrong = node.w_cond * (got - v_cond) + node.w_uncond * (other - v_uncond)
            guided = node.w_cond * v_cond + node.w_uncond * v_uncond
            ratios.append((wrong.norm() / guided.norm()).item() / sum(largest.values()))
    assert len(ratios) >= 4
    assert max(ratios) < 1.5 and min(ratios) > 1 / 10


def test_the_gap_predicts_better_than_the_branch_and_than_elision(
    recorded: tuple[list[Node], Steps],
) -> None:
    table, steps = recorded
    for i in range(2, 8):
        (_, before), (v_cond, v_uncond) = steps[i - 1], steps[i]
        reuse = Reuse(Elision(0.0), reuse_tol=10.0)
        for j in (i - 2, i - 1):
            reuse.needed(j, table[j])
            reuse.complete(j, table[j], steps[j])
        assert reuse.needed(i, table[i]) == ("cond",)
        _, taken = reuse.complete(i, table[i], [v_cond])
        error = (taken - v_uncond).norm()
        assert error < 0.7 * min((before - v_uncond).norm(), (v_cond - v_uncond).norm())


@pytest.mark.parametrize("space", ["velocity", "x0"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_run_is_near_the_exact_one(
    load: Callable[..., Restorer], clip: Clip, solver: str, space: str
) -> None:
    exact = load(steps=8, t_start=0.4, alpha0=2.0, solver=solver, space=space, chunk=8)
    frames = clip(8, 16, 16)
    want = exact.restore(frames)
    near = exact.configure(reuse_tol=0.02, cache_tol=0.05).restore(frames)
    far = exact.configure(reuse_tol=1.0, cache_tol=1.0).restore(frames)
    assert psnr(far, want) < psnr(near, want) - 3
    assert psnr(near, want) > 45


def test_report(load: Callable[..., Restorer], clip: Clip, pictures: Any, tmp_path: Path) -> None:
    restorer = load(steps=10, t_start=0.4, alpha0=2.0, branches="sequential")
    source = pictures(clip(8, 16, 24))
    plain = restorer.restore_file(source, tmp_path / "plain")
    assert plain["reuse"] == {"tolerance": 0.0, "saved": 0, "largest_error": 0.0}
    none = {"cond": 0, "uncond": 0}
    assert plain["caching"] == {"tolerance": 0.0, "saved": none, "largest_error": 0.0}
    settings = {"elide_tol": 0.01, "reuse_tol": 0.1, "cache_tol": 1.0}
    report = restorer.configure(**settings).restore_file(source, tmp_path / "less")
    made, all_ = report["evaluations"], plain["evaluations"]
    caching, reuse = report["caching"], report["reuse"]
    assert 0 < caching["saved"]["cond"] == all_["cond"] - made["cond"]
    saved = caching["saved"]["uncond"] + reuse["saved"] + report["elision"]["saved"]
    assert saved == all_["uncond"] - made["uncond"]
    assert 0 < caching["largest_error"] < 1 and 0 < reuse["largest_error"] < 0.1


def test_split_and_batches_change_nothing(
    load: Callable[..., Restorer], clip: Clip, pictures: Any, tmp_path: Path
) -> None:
    source = pictures(clip(8, 16, 24))
    restorer = load(steps=8, t_start=0.4, alpha0=2.0, reuse_tol=0.1, cache_tol=1.0)
    report = restorer.restore_file(source, tmp_path / "whole")
    assert report["caching"]["saved"]["cond"] > 0 < report["reuse"]["saved"]
    for first, last in ((0, 2), (3, 7)):
        restorer.restore_file(source, tmp_path / "parts", frames=(first, last), overwrite=True)
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name
    one = restorer.configure(tile_batch=1).restore_file(source, tmp_path / "one")
    assert one["evaluations"] == report["evaluations"]
