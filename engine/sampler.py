"""The sampling loop of lookahead guidance.

SDEdit and classifier-free guidance are settings of this loop (`DTG.sdedit`, `DTG.cfg`), not other
loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from .schedule import Node
from .solver import FIRST_HALF, SECOND_HALF, WHOLE, Solver, Velocities
from .types import StepInfo

# (x, index of the node) to (v_cond, v_uncond): two tensors that we own, (B, C, T, H, W);
# v_uncond is None where it was not evaluated: its weight is 0, or it was left out.
Branches = Callable[[Tensor, int], Velocities]


def sample(
    branches: Branches,
    x: Tensor,
    nodes: Sequence[Node],
    solver: str = "euler",
    on_step: Callable[[StepInfo], None] | None = None,
    steps: Solver | None = None,
) -> Tensor:
    """Integrate dx/dt = w_cond v_cond + w_uncond v_uncond over `nodes`, from t_start to 0.

    Where an unconditional velocity that has weight is left out, dx/dt = v_cond: see `elision`.

    Parameters
    ----------
    branches : the two velocities at a node.
    x : (B, C, T, H, W) fp32, noised to `nodes[0].t`.
    nodes : `schedule.nodes(...)`; the last has t = 0.
    solver : "euler", or "heun" (the trapezoidal rule with an Euler predictor).
    on_step : called after every step; an exception it raises ends the run.
    steps : `Solver(nodes, x.device)`, where it was made before: the loop then copies nothing.
    """
    steps = steps or Solver(nodes, x.device)
    for i, (here, there) in enumerate(pairwise(nodes)):
        v = branches(x, i)
        ahead = steps.advance(x, v, i, WHOLE)
        if solver == "heun" and there.t > 0:
            half = steps.advance(x, v, i, FIRST_HALF)
            ahead = steps.advance(half, branches(ahead, i + 1), i, SECOND_HALF)
        x = ahead
        if on_step is not None:
            made = 1 + (v[1] is not None)
            on_step(StepInfo(i + 1, len(nodes) - 1, here.t, here.tau, here.alpha, made))
    return x
