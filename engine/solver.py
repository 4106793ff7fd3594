"""The updates of the state that the solvers are made of, with their weights on its device.

The weights of all steps are laid down once, before the first, in the table that `dtg_step` reads:
nothing of a step is passed by value, so a graph of one fits all.  The table is made from the nodes
that elision decides by, on every device: a device's own `exp` could disagree in the last bit with a
decision that was made on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..kernels import dtg_step
from .elision import weights
from .schedule import Node

# The parts of a step from one node to the next.  Euler makes the whole step with the velocity of
# the first node; the trapezoidal rule makes half of it with each one's.
WHOLE, FIRST_HALF, SECOND_HALF = range(3)

Velocities = tuple[Tensor, Tensor | None]  # v_cond, and v_uncond where it was evaluated


class Solver:
    """The steps between `nodes` of a state on `device`.

    `table` (6 n, 3) fp32 has the rows w_cond, w_uncond, dt; six for each step: for each part two,
    the first with both branches evaluated.
    """

    def __init__(self, nodes: Sequence[Node], device: torch.device):
        rows = []
        for here, there in pairwise(nodes):
            dt = there.t - here.t
            for node, length in ((here, dt), (here, dt / 2), (there, dt / 2)):
                rows += [(*weights(node, evaluated), length) for evaluated in (True, False)]
        self.table = torch.tensor(rows, dtype=torch.float32, device=device)

    def advance(self, x: Tensor, v: Velocities, step: int, part: int) -> Tensor:
        """x after `part` of `step`, in new memory."""
        v_cond, v_uncond = v
        row = 6 * step + 2 * part + (v_uncond is None)
        return dtg_step(x, v_cond, v_uncond, self.table, row)
