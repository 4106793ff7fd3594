"""Graphs that ONNX Runtime has optimised beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.runtimes.engines import open_engine
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.ort import to_ort
from dtg_restore.export.stage import Artefact, Stage

CPU = torch.device("cpu")


class Normed(nn.Module):
    """What ONNX Runtime joins: a sum and the norm of it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear(x))


@pytest.mark.parametrize("external", [False, True])
def test_fused_ops_and_the_same_numbers(external: bool, tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    stage = Stage("velocity.0", Normed().eval(), {"x": torch.randn(2, 5, 64)}, ("v",))
    plain = to_onnx(stage, tmp_path, external=external)
    artefact = to_ort(plain, tmp_path, CPU)
    assert artefact == plain and len(plain.files) == 1 + external
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(plain.files)
    graph = onnx.load(tmp_path / artefact.files[0], load_external_data=False).graph
    assert "SkipLayerNormalization" in {node.op_type for node in graph.node}
    assert any(w.external_data for w in graph.initializer) == external
    engine = open_engine("ort", tmp_path, Component(*artefact), CPU)
    with torch.no_grad():
        expected = stage.module(*stage.inputs.values())
    torch.testing.assert_close(engine(stage.inputs)["v"], expected, rtol=1e-5, atol=1e-5)


def test_damaged_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "part.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"cannot open .*part\.onnx"):
        to_ort(Artefact(("part.onnx",), {}, {}, None), tmp_path, CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["part.onnx"]
