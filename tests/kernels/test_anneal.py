"""The annealing tables against the schedule that the engine decides by."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine import schedule
from dtg_restore.engine.config import DTG, SCHEDULES, SPACES
from dtg_restore.kernels import anneal, dtg_step
from dtg_restore.kernels.anneal import ALPHA_ONE

HALF_A_UNIT = 2.0**-24  # of an fp32 value of size 1, relative


def annealed(dtg: DTG, **options: Any) -> tuple[Tensor, Tensor]:
    times = schedule.flow_times(dtg.steps, dtg.t_start, dtg.shift)
    settings = ("t_start", "delta0", "alpha0", "schedule", "kappa", "space", "tau_floor")
    settings += ("alpha_clip",)
    return anneal(
        torch.tensor(times, dtype=torch.float64),
        **{name: getattr(dtg, name) for name in settings},
        **options,
    )


def hold_to_the_nodes(dtg: DTG) -> None:
    nodes = schedule.nodes(dtg)
    path, table = annealed(dtg)
    want_path = torch.tensor([(n.t - n.tau, n.alpha, n.tau) for n in nodes], dtype=torch.float64)
    want = [(a.w_cond, a.w_uncond, b.t - a.t) for a, b in pairwise(nodes)]
    want_table = torch.tensor(want, dtype=torch.float64)
    # Rounded once; in fp64 another order of operations shows in the last digits alone.
    close = {"rtol": HALF_A_UNIT * 1.001, "atol": 1e-14}
    torch.testing.assert_close(path.double(), want_path, **close)
    torch.testing.assert_close(table.double(), want_table, **close)
    assert [a == 1 for a in path[:, 1].tolist()] == [n.alpha == 1 for n in nodes]
    assert [w == 0 for w in table[:, 1].tolist()] == [n.w_uncond == 0 for n in nodes[:-1]]


@pytest.mark.parametrize("alpha_clip", [False, True])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_the_nodes_of_the_engine(name: str, space: str, alpha_clip: bool) -> None:
    options = {"schedule": name, "space": space, "alpha_clip": alpha_clip}
    for t_start, delta0, tau_floor, shift in (
        (0.5, 0.15, 0.0, 1.0),
        (0.3, 0.4, 0.25, 3.0),  # the floor holds
        (1.0, 0.3, 0.0, 1.0),
        (0.2, 0.2, 0.0, 1.0),  # tau = 0, for "constant" at once
    ):
        for alpha0 in (0.0, 1.0, 2.0, 8.0):
            hold_to_the_nodes(
                DTG(t_start, 9, delta0, alpha0, tau_floor=tau_floor, shift=shift, **options)
            )


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 30.0, 50.0])
def test_rates(kappa: float) -> None:
    hold_to_the_nodes(DTG(kappa=kappa, steps=12))


def test_alpha_is_exactly_one_where_the_nodes_say_so() -> None:
    dtg = DTG(alpha0=2.0, kappa=30.0, steps=20)
    hold_to_the_nodes(dtg)
    path, table = annealed(dtg)
    is_one = path[:-1, 1] == 1
    assert 1 < is_one.sum() < 20
    assert (table[is_one, 1] == 0).all() and (path[:-1][~is_one, 1] - 1 > ALPHA_ONE).all()


def test_the_threshold_is_that_of_the_engine() -> None:
    assert ALPHA_ONE == schedule.ALPHA_ONE
    for alpha0, is_one in ((1 + ALPHA_ONE, True), (1 + 1.5 * ALPHA_ONE, False)):
        path, _ = annealed(DTG(alpha0=alpha0, schedule="constant", steps=1))
        assert (path[0, 1].item() == 1) is is_one


def test_the_table_drives_a_step() -> None:
    dtg = DTG(steps=3, alpha0=2.0)
    _, table = annealed(dtg)
    x, v_cond, v_uncond = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    here, there = schedule.nodes(dtg)[1:3]
    guided = here.w_cond * v_cond + here.w_uncond * v_uncond
    got = dtg_step(x, v_cond, v_uncond, table, torch.tensor(1))
    torch.testing.assert_close(got, x + (there.t - here.t) * guided, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t": torch.zeros(3)}, r"t must be \(n \+ 1,\) float64, got \(3,\) torch.float32"),
        ({"t": torch.zeros(1, 3).double()}, r"got \(1, 3\) torch.float64"),
        ({"schedule": "steep"}, "schedule is 'steep': known are exponential, cosine"),
        ({"space": "noise"}, "space is 'noise': known are velocity, x0"),
        ({"kappa": 0.0}, "t_start and kappa must be positive, got 0.5 and 0.0"),
        ({"t_start": math.nan}, "must be positive, got nan"),
    ],
)
def test_misfits_are_named(changed: dict[str, Any], message: str) -> None:
    good = {"t": torch.tensor([0.5, 0.0]).double(), "t_start": 0.5, "delta0": 0.1, "alpha0": 2.0}
    with pytest.raises(ValueError, match=message):
        anneal(**(good | changed))
