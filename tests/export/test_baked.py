"""Passes with the conditioning of a run stored in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniBackbone
from dtg_restore.engine.backbones.wan import facts_for
from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.engine.config import DTG
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.schedule import nodes
from dtg_restore.export import export_backbone, to_onnx, wan
from dtg_restore.export.baked import Run, bake
from dtg_restore.export.condition import ConditionGraph
from dtg_restore.export.velocity import flatten, unroll

NODES = nodes(DTG(t_start=0.6, steps=3, delta0=0.15, alpha0=2.0))
SIZES = {"batch": 2, "frames": 4, "height": 16, "width": 8}
# What the two samples of a call are: (node, branch) each.
CALLS = [((0, 0), (0, 1)), ((2, 1), (1, 0)), ((3, 0), (0, 0))]


def test_mini(
    onnx: Any,
    make_mini: Callable[..., MiniBackbone],
    run: Callable[..., list[Tensor]],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    backbone, path = make_mini(depth=2), tmp_path / "baked.onnx"
    export_backbone(backbone, path, **SIZES, baked=Run(NODES, "clean", "null"))
    proto = onnx.load(path)
    assert "Gather" in {node.op_type for node in proto.graph.node}
    context = backbone.prepare("clean", "null", NODES)
    x = torch.randn(2, 3, 4, 16, 8)
    for call in CALLS:
        node, branch = (torch.tensor(rows) for rows in zip(*call, strict=True))
        expected = []
        for sample, (index, row) in zip(x.split(1), call, strict=True):
            condition = context.at(index, (("cond", "uncond")[row],), 1)._replace(phase=(0, 0, 0))
            t = torch.tensor([NODES[index].tau if row else NODES[index].t])
            expected.append(backbone.velocity(sample, t, condition))
        close(run(path, {"x": x, "node": node, "branch": branch}), torch.cat(expected))


def test_phase_stays_outside(make_mini: Callable[..., MiniBackbone]) -> None:
    """What `flatten` and `unroll` do to x and v holds for a baked pass as well."""
    backbone = make_mini()
    condition = backbone.prepare("clean", "null", NODES).at(1, ("cond",), 1)
    assert any(condition.phase)
    x, t = torch.randn(1, 3, 4, 16, 8), torch.tensor([NODES[1].t])
    rolled = flatten(x, t, condition)["x"]
    v = backbone.velocity(rolled, t, condition._replace(phase=(0, 0, 0)))
    assert unroll(v, condition.phase).equal(backbone.velocity(x, t, condition))


def test_wan(
    wan_network: WanDiT,
    run: Callable[..., list[Tensor]],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    text = torch.randn(2, 5, wan_network.config.text_dim)
    stage = wan.velocity_stage(facts_for(wan_network.config, 1), wan_network, 0, (2, 5, 32, 32), 7)
    made = to_onnx(bake(stage, ConditionGraph(wan_network), NODES, text), tmp_path)
    x = torch.randn_like(stage.inputs["x"])
    for call in CALLS:
        node, branch = (torch.tensor(rows) for rows in zip(*call, strict=True))
        times = torch.tensor([NODES[i].tau if row else NODES[i].t for i, row in call])
        condition = wan_network.condition(times, text[branch])
        inputs = {"x": x, "node": node, "branch": branch}
        close(run(tmp_path / made.files[0], inputs), wan_network(x, condition))


def test_open_axes_are_those_of_the_pass(wan_network: WanDiT) -> None:
    facts = facts_for(wan_network.config, 1)
    stage = wan.velocity_stage(facts, wan_network, 0, (2, 5, 32, 32), 5, dynamic=True)
    text = torch.randn(2, 5, wan_network.config.text_dim)
    made = bake(stage, ConditionGraph(wan_network), NODES, text)
    assert made.open_axes["node"] == made.open_axes["branch"] == {0: stage.open_axes["x"][0]}
    assert made.open_axes["x"] == stage.open_axes["x"]


def test_unknown_prompt(make_mini: Callable[..., MiniBackbone], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quality tag"):
        export_backbone(make_mini(), tmp_path / "a.onnx", **SIZES, baked=Run(NODES, "fine", "null"))
    assert not list(tmp_path.iterdir())
