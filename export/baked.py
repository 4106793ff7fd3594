"""A pass with the conditioning of a whole run stored in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..engine.schedule import Node
from .condition import ConditionGraph
from .stage import Stage


class Run(NamedTuple):
    """What the conditioning of a run depends on."""

    nodes: Sequence[Node]
    prompt: str
    negative_prompt: str


class BakedGraph(nn.Module):
    """A pass of x with node (B,) and branch (B,), which pick the rows of what is stored.

    Parameters
    ----------
    velocity : the pass; its forward takes x, t where it is `timed`, and the conditioning.
    times : (2 nodes,), the first branch's first.
    tables : the conditioning at `times` under both conditions, see `ConditionGraph`.
    """

    times: Tensor
    modulation: Tensor
    final: Tensor
    keys: Tensor
    values: Tensor

    def __init__(self, velocity: nn.Module, timed: bool, times: Tensor, tables: Sequence[Tensor]):
        super().__init__()
        self.velocity, self.timed, self.nodes = velocity, timed, len(times) // 2
        named = zip(("modulation", "final", "keys", "values"), tables, strict=True)
        for name, table in (("times", times), *named):
            self.register_buffer(name, table)

    def forward(self, x: Tensor, node: Tensor, branch: Tensor) -> Tensor:
        row = branch * self.nodes + node
        t = (self.times.index_select(0, row),) if self.timed else ()
        return self.velocity(
            x,
            *t,
            self.modulation.index_select(1, row),
            self.final.index_select(0, row),
            self.keys.index_select(1, branch),
            self.values.index_select(1, branch),
        )


@torch.no_grad()
def bake(stage: Stage, condition: ConditionGraph, nodes: Sequence[Node], given: Tensor) -> Stage:
    """The stage of a pass with inputs `x`, `node` and `branch` (0 conditional, 1 unconditional).

    `given` are the tags or the text of both branches.
    """
    x = stage.inputs["x"]
    times = [node.t for node in nodes] + [node.tau for node in nodes]
    at = torch.tensor(times, device=x.device)
    graph = BakedGraph(stage.module, "t" in stage.inputs, at, condition(at, given)).eval()
    rows = torch.zeros(len(x), dtype=torch.long, device=x.device)
    axes = dict(stage.open_axes)
    if axes:
        axes = {"x": axes["x"], **dict.fromkeys(("node", "branch"), {0: axes["x"][0]})}
    inputs = {"x": x, "node": rows, "branch": rows.clone()}
    return Stage(stage.name, graph, inputs, stage.outputs, axes)
