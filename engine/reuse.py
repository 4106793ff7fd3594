"""Evaluations that are replaced by earlier ones of the same chunk: reuse and step caching.

Two things change slowly along a run and are kept from where they were last evaluated:

    v_cond                   the conditional velocity at t
    d = v_uncond - v_cond    the gap to the unconditional one at tau, which shrinks with t - tau

Reuse saves the unconditional evaluation at t, caching both evaluations, by what is kept of t':

    reuse     v_uncond := v_cond + rho d(t')       rho = delta(t) / delta(t'), delta(t) = t - tau
    caching   v_cond := v_cond(t')                 and the gap as above

It is the gap that is kept of the moving branch, as what a step changes in both branches cancels in
it: on `mini` the next node's v_uncond is predicted three times better than by v_uncond(t') itself,
which misses more than elision does (d := 0).  The x0-prediction is no better than the velocity:
x0(t') = x' - t' v(t') and an Euler step along v(t') give (x - x0(t')) / t = v(t') again.

The estimate is made of the error that the last evaluation found.  At t_i it replaced what was kept
of t_h, and e_i, the norm of the difference, is what using that would have cost.  Error in the
x0-prediction, t e, grows with the distance between evaluation and use; so, for what is kept of t',

    e(t) = e_i (t_i / t) max(1, (t' - t) / (t_h - t_i))        and times delta(t) / delta(t_i) for d

Over ||v_dtg|| at the last evaluation, with the weights of the node, that is a relative error of the
guided velocity.  Where a backbone cuts x into other blocks at every node (`BackboneFacts.cycle`),
v_cond is compared with, and taken from, nodes of the same cut alone: on `mini` another cut changes
three times as much as the way of a whole cycle does.  Where t or tau passes to another expert,
everything known is forgotten.  See bench/caching.py for what it all costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .elision import Elision, norm
from .schedule import Node


class Kept(NamedTuple):
    """A tensor, the time it was evaluated at, and what its size is proportional to."""

    t: float
    scale: float
    value: Tensor


class Change(NamedTuple):
    """What evaluating anew at t, `span` after the time before, has changed."""

    t: float
    scale: float
    span: float
    norm: Tensor


class Drift:
    """A tensor as last evaluated, for every node of a cycle, and its expected change since."""

    def __init__(self, cycle: int = 1):
        self._cycle = cycle
        self._kept: dict[int, Kept] = {}
        self._change: Change | None = None

    def keep(self, index: int, t: float, value: Tensor, scale: float = 1.0) -> None:
        """`value` was evaluated at node `index`; at an equal time it only replaces the last."""
        before = self._kept.get(index % self._cycle)
        if before is not None and before.t > t:
            missed = norm(value - _ratio(scale, before.scale) * before.value)
            self._change = Change(t, scale, before.t - t, missed)
        self._kept[index % self._cycle] = Kept(t, scale, value)

    def error(self, index: int, t: float, scale: float = 1.0) -> float:
        """Estimated norm of what `value` is wrong by at node `index`; infinite where unknown."""
        kept, change = self._kept.get(index % self._cycle), self._change
        if kept is None or change is None:
            return math.inf
        growth = max(1.0, (kept.t - t) / change.span) * change.t / t
        return float(change.norm) * growth * _ratio(scale, change.scale)

    def value(self, index: int) -> Tensor:
        return self._kept[index % self._cycle].value

    def ratio(self, index: int, scale: float) -> float:
        """What `value` is to be multiplied by at node `index`."""
        return _ratio(scale, self._kept[index % self._cycle].scale)


class Reuse:
    """Decides, node by node of one chunk after another, which branches are evaluated.

    Each tolerance is of the relative error of the guided velocity that its own replacements make;
    where several are at work at a node, their errors add up.  At 0 an idea is off: nothing is kept
    and nothing is measured for it.  Elision is asked where reuse would be wrong by more.

    Parameters
    ----------
    elision : decides on leaving the unconditional branch out.
    reuse_tol, cache_tol : 0 .. 1, see `RestoreConfig`.
    cycle, experts : of the backbone's facts.
    """

    def __init__(
        self,
        elision: Elision,
        reuse_tol: float = 0.0,
        cache_tol: float = 0.0,
        cycle: int = 1,
        experts: Sequence[float] = (0.0,),
    ):
        self.elision, self.reuse_tol, self.cache_tol = elision, reuse_tol, cache_tol
        self.reused = 0
        self.cached = {"cond": 0, "uncond": 0}
        self.largest_error = {"reuse": 0.0, "caching": 0.0}
        self._cycle, self._experts = cycle, experts
        self.begin()

    def begin(self) -> None:
        """Another chunk or expert begins: nothing is known of it."""
        self.elision.begin()
        self._cond, self._gap = Drift(self._cycle), Drift()
        self._guided: Tensor | float = math.nan  # norm of v_dtg at the last evaluation
        self._takes_gap = False
        self._seen: tuple[int, ...] | None = None  # the experts of t and tau

    def needed(self, index: int, node: Node) -> tuple[str, ...]:
        """The branches to evaluate at node `index`; what is saved is counted."""
        asked = tuple(sum(t >= first for first in self._experts) for t in (node.t, node.tau))
        if asked != self._seen:
            self.begin()
            self._seen = asked
        gap = abs(node.w_uncond) * self._relative(self._gap.error(0, node.t, node.t - node.tau))
        self._takes_gap = node.w_uncond != 0 and gap < self.reuse_tol
        if self._takes_gap:
            self.reused += 1
            self._note("reuse", gap)
        both = not self._takes_gap and not self.elision.leaves_out(node)
        if not self._caches(index, node, both, gap):
            return ("cond", "uncond") if both else ("cond",)
        self.cached["cond"] += 1
        self.cached["uncond"] += both
        self._takes_gap |= both
        return ()

    def complete(
        self, index: int, node: Node, evaluated: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """(v_cond, v_uncond) at node `index`, of which `needed` are `evaluated`.

        v_uncond is None where it is neither evaluated nor taken from what is kept.
        """
        v_cond = evaluated[0] if evaluated else self._cond.value(index)
        v_uncond = evaluated[1] if len(evaluated) == 2 else None
        if v_uncond is not None:
            self.elision.measure(node, v_cond, v_uncond)
        elif self._takes_gap:
            ratio = self._gap.ratio(0, node.t - node.tau)
            v_uncond = torch.add(v_cond, self._gap.value(0), alpha=ratio)
        if evaluated and (self.reuse_tol or self.cache_tol):
            self._learn(index, node, v_cond, v_uncond, measured=len(evaluated) == 2)
        return v_cond, v_uncond

    def describe(self) -> dict[str, Any]:
        """Plain data for the report: of each idea its tolerance, the evaluations that it saved and
        the largest estimated error of its own."""
        return {
            "elision": self.elision.describe(),
            "reuse": {
                "tolerance": self.reuse_tol,
                "saved": self.reused,
                "largest_error": self.largest_error["reuse"],
            },
            "caching": {
                "tolerance": self.cache_tol,
                "saved": dict(self.cached),
                "largest_error": self.largest_error["caching"],
            },
        }

    def _caches(self, index: int, node: Node, both: bool, gap: float) -> bool:
        """Whether nothing is evaluated at `node`.

        `both` tells that the unconditional branch is not saved yet: taking it from the kept gap, of
        error `gap`, is caching too.
        """
        if self.cache_tol == 0:
            return False
        left_out = node.w_uncond != 0 and not both and not self._takes_gap
        weight = 1.0 if left_out else abs(node.w_cond + node.w_uncond)  # of v_cond in all
        error = weight * self._relative(self._cond.error(index, node.t)) + (gap if both else 0.0)
        if not error < self.cache_tol:  # nor is nan
            return False
        self._note("caching", error)
        return True

    def _learn(
        self, index: int, node: Node, v_cond: Tensor, v_uncond: Tensor | None, measured: bool
    ) -> None:
        guided = node.w_cond * v_cond
        if v_uncond is not None:
            guided += node.w_uncond * v_uncond
        elif node.w_uncond != 0:  # left out
            guided = v_cond
        self._guided = norm(guided)
        if self.cache_tol:
            self._cond.keep(index, node.t, v_cond)
        if measured and v_uncond is not None:
            self._gap.keep(0, node.t, v_uncond - v_cond, node.t - node.tau)

    def _relative(self, error: float) -> float:
        if error == math.inf:
            return math.inf
        self._guided = float(self._guided)
        return error / self._guided if self._guided > 0 else math.inf

    def _note(self, idea: str, error: float) -> None:
        self.largest_error[idea] = max(self.largest_error[idea], error)


def _ratio(scale: float, before: float) -> float:
    return scale / before if before > 0 else 1.0
