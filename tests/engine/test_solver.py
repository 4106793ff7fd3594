"""The table of weights: every part of every step, with and without the unconditional branch."""

from __future__ import annotations

import pytest
import torch

from dtg_restore.engine.config import DTG
from dtg_restore.engine.schedule import Node, nodes
from dtg_restore.engine.solver import FIRST_HALF, SECOND_HALF, WHOLE, Solver

CPU = torch.device("cpu")
X, V_COND, V_UNCOND = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))


def formula(node: Node, dt: float, evaluated: bool) -> torch.Tensor:
    """With plain numbers, which torch rounds to float32 where they meet a tensor."""
    if evaluated:
        return X + dt * (node.w_cond * V_COND + node.w_uncond * V_UNCOND)
    return X + dt * ((node.w_cond if node.w_uncond == 0 else 1.0) * V_COND)


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize("space", ["velocity", "x0"])
def test_parts_of_a_step_bit_for_bit(space: str, evaluated: bool) -> None:
    """At kappa 30 the last nodes have alpha = 1; in x0 space tau = 0 has no weight either."""
    table = nodes(DTG(t_start=0.6, alpha0=2.0, delta0=0.6, kappa=30.0, steps=7, space=space))
    assert 0 < sum(n.w_uncond == 0 for n in table[:-1]) < 7
    solver, v = Solver(table, CPU), (V_COND, V_UNCOND if evaluated else None)
    for i in range(7):
        here, there = table[i], table[i + 1]
        dt = there.t - here.t
        for part, node, length in (
            (WHOLE, here, dt),
            (FIRST_HALF, here, dt / 2),
            (SECOND_HALF, there, dt / 2),
        ):
            assert torch.equal(solver.advance(X, v, i, part), formula(node, length, evaluated)), (
                i,
                part,
            )
