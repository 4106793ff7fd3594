"""Branch elision: the unconditional evaluation is not made where it would hardly count.

Without it the unconditional prediction is taken to be the conditional one.  In velocity space
v_uncond := v_cond; in x0 space x - tau v_uncond := x - t v_cond, so v_uncond := (t / tau) v_cond,
of weight (1 - alpha) tau / t.  In both spaces the guided velocity is then v_cond itself, and what
it is wrong by is

    v_dtg - v_cond = (1 - alpha) (r v_uncond - v_cond),        r = 1, or tau / t in x0 space

The gap ||r v_uncond - v_cond|| / ||v_dtg|| is that of the last node where both were evaluated; a
node's estimated relative error is |1 - alpha| times the gap.  It depends on the chunk's own state
alone.  A chunk is always computed whole, whatever batch of tiles or worker has it, so that every
division of the work makes the same decisions on the same hardware and engine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .schedule import Node


class Elision:
    """Decides, node by node of one chunk after another, and keeps count.

    `tolerance` is of the relative error of the guided velocity.  0 is exact: only a branch of
    weight zero is left out, and nothing is measured.  Above 0 the host waits for the device once
    for every node that both branches were evaluated at.
    """

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self.saved = self.weightless = 0
        self.largest_error = 0.0
        self._gap: Tensor | float | None = None

    def begin(self) -> None:
        """Another chunk or expert begins: nothing is known of it."""
        self._gap = None

    def leaves_out(self, node: Node) -> bool:
        """Whether the unconditional evaluation at `node` is not made; counted where it is not."""
        if node.w_uncond == 0:
            self.weightless += 1
            return True
        if self.tolerance == 0 or self._gap is None:
            return False
        self._gap = float(self._gap)
        error = abs(1 - node.alpha) * self._gap
        if not error < self.tolerance:  # nor is nan
            return False
        self.saved += 1
        self.largest_error = max(self.largest_error, error)
        return True

    def measure(self, node: Node, v_cond: Tensor, v_uncond: Tensor) -> None:
        """Both branches were evaluated at `node`."""
        if self.tolerance == 0 or node.alpha == 1:
            return
        ratio = node.w_uncond / (1 - node.alpha)
        gap = v_cond - ratio * v_uncond
        guided = node.w_cond * v_cond + node.w_uncond * v_uncond
        self._gap = norm(gap) / norm(guided)

    def describe(self) -> dict[str, Any]:
        """Plain data for the report: unconditional evaluations saved by the tolerance, those that
        had no weight, and the largest estimated error of the ones that were saved."""
        return {
            "tolerance": self.tolerance,
            "saved": self.saved,
            "weightless": self.weightless,
            "largest_error": self.largest_error,
        }


def norm(v: Tensor) -> Tensor:
    """Euclidean, in fp64, so that the order of the sum, as of threads, decides nothing."""
    return torch.linalg.vector_norm(v, dtype=torch.float64)


def weights(node: Node, evaluated: bool) -> tuple[float, float]:
    """(w_cond, w_uncond) at `node`; (1, 0) where a branch that has weight was not `evaluated`."""
    if not evaluated and node.w_uncond != 0:
        return 1.0, 0.0
    return node.w_cond, node.w_uncond
