"""Rotary tables in a graph, and passes whose sizes they leave open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtg_restore.engine.backbones.blocks import rope_3d
from dtg_restore.engine.backbones.mini import MiniBackbone
from dtg_restore.engine.backbones.wan import facts_for
from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.export import export_backbone, to_onnx, wan
from dtg_restore.export.rotary import FixedRotary, OpenRotary
from dtg_restore.export.velocity import flatten

CPU = torch.device("cpu")
FORBIDDEN_OPS = {"ScatterND", "ScatterElements", "Loop", "If"}


def test_tables() -> None:
    for grid, head_dim in (((3, 5, 7), 24), ((1, 1, 1), 16), ((21, 30, 52), 128)):
        expected = rope_3d(*grid, head_dim, CPU)
        for a, b, c in zip(
            expected,
            FixedRotary(grid, head_dim, CPU)(*grid),
            OpenRotary(head_dim, CPU)(*grid),
            strict=True,
        ):
            assert a.equal(b) and a.dtype == c.dtype
            assert (a - c).abs().max() < 1e-5


def check_ops(onnx: Any, path: Path) -> None:
    proto = onnx.load(path)
    assert FORBIDDEN_OPS.isdisjoint(node.op_type for node in proto.graph.node)


def test_mini_of_any_size(
    onnx: Any,
    make_mini: Callable[..., MiniBackbone],
    run: Callable[..., list[Tensor]],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    backbone, path = make_mini(), tmp_path / "open.onnx"
    sizes = {"batch": 2, "frames": 4, "height": 16, "width": 16}  # equal sides are not tied
    export_backbone(backbone, path, **sizes, dynamic=True)
    check_ops(onnx, path)
    for batch, *size in ((2, 4, 16, 16), (1, 2, 24, 8), (3, 6, 8, 40)):
        x, t = torch.randn(batch, 3, *size), torch.linspace(0.1, 0.7, batch)
        condition = backbone.network.condition(t, torch.arange(batch) % 3)
        expected = backbone.velocity(x, t, condition)
        close(run(path, flatten(x, t, condition)), expected)


def test_wan_of_any_size(
    onnx: Any,
    wan_network: WanDiT,
    run: Callable[..., list[Tensor]],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    facts = facts_for(wan_network.config, 1)
    made = to_onnx(
        wan.velocity_stage(facts, wan_network, 0, (2, 5, 32, 32), 5, dynamic=True), tmp_path
    )
    assert made.inputs["x"].shape == ("batch", 16, "frames", "height", "width")
    assert made.outputs["v"].shape == made.inputs["x"].shape
    check_ops(onnx, tmp_path / made.files[0])
    for size in ((2, 5, 32, 32), (1, 1, 16, 48), (3, 9, 48, 16)):
        fixed = wan.velocity_stage(facts, wan_network, 0, size, 5)
        inputs = {name: torch.randn_like(tensor) for name, tensor in fixed.inputs.items()}
        close(run(tmp_path / made.files[0], inputs), fixed.module(*inputs.values()))
