"""Weights that components of a bundle share on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.bundle.damage import damage
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.runtimes.engines import open_engine
from dtg_restore.export.build import build_bundle
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.ort import to_ort
from dtg_restore.export.request import ExportRequest
from dtg_restore.export.shared import LEAST, share_weights
from dtg_restore.export.stage import Artefact, Stage

CPU = torch.device("cpu")
FLOATS = LEAST // 4


def stage(batch: int) -> Stage:
    """With a matrix of twice the least size, and a bias and a norm far below it."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.LayerNorm(16), torch.nn.Linear(16, FLOATS // 8))
    return Stage(f"velocity.{batch}", module.eval(), {"x": torch.randn(batch, 3, 16)}, ("v",))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("to", ["onnx", "ort"])
@pytest.mark.parametrize("external", [False, True])
def test_two_graphs_and_one_matrix(to: str, external: bool, onnx: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    for place in (tmp_path / "a", tmp_path / "b"):
        place.mkdir()
        made = []
        for batch in (1, 2):
            artefact = to_onnx(stage(batch), place, external=external)
            artefact = artefact if to == "onnx" else to_ort(artefact, place, CPU)
            made.append(share_weights(artefact, place))
    written = files(tmp_path / "b")
    assert written == files(tmp_path / "a")  # reproducible
    assert made[0].files[1:] == made[1].files[1:] and len(made[0].files) == 2
    assert written.keys() == {"velocity.1.onnx", *made[1].files}
    assert len(written[made[0].files[1]]) == 2 * LEAST
    for batch, artefact in zip((1, 2), made, strict=True):
        if to == "onnx":  # the fused ops of ONNX Runtime are not in the standard
            onnx.checker.check_model(str(tmp_path / "b" / artefact.files[0]), full_check=True)
        given = stage(batch)
        engine = open_engine(to, tmp_path / "b", Component(*artefact), CPU)
        with torch.no_grad():
            expected = given.module(given.inputs["x"])
        torch.testing.assert_close(engine(given.inputs)["v"], expected, rtol=1e-5, atol=1e-5)


def test_other_weights_have_another_file(onnx: Any, tmp_path: Path) -> None:
    first, second = stage(1), replace(stage(1), name="other")
    with torch.no_grad():
        second.module[1].weight[3, 5] += 1
    a, b = (share_weights(to_onnx(part, tmp_path), tmp_path) for part in (first, second))
    assert set(a.files).isdisjoint(b.files)


def test_values_in_typed_fields_are_kept(onnx: Any, tmp_path: Path) -> None:
    """What is stored number by number in a graph, as bf16 is in the field of int32."""
    values = torch.arange(LEAST, dtype=torch.float32)
    kinds = {"large": onnx.TensorProto.BFLOAT16, "small": onnx.TensorProto.FLOAT}
    tensors = {
        "large": onnx.helper.make_tensor("large", kinds["large"], [LEAST], values.tolist()),
        "small": onnx.helper.make_tensor("small", kinds["small"], [3], [1.0, 2.0, 3.0]),
    }
    outputs = [onnx.helper.make_tensor_value_info(n, k, None) for n, k in kinds.items()]
    graph = onnx.helper.make_graph([], "g", [], outputs, list(tensors.values()))
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    assert len(share_weights(Artefact(("g.onnx",), {}, {}, None), tmp_path).files) == 2
    for tensor in onnx.load(tmp_path / "g.onnx").graph.initializer:
        expected = onnx.numpy_helper.to_array(tensors[tensor.name])
        assert (onnx.numpy_helper.to_array(tensor) == expected).all()


@pytest.mark.usefixtures("cache")
def test_a_bundle_of_two_batches(
    onnx: Any, small: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtg_restore.export.shared.LEAST", 2**12)  # the model is small
    request = ExportRequest(
        backbone=small["backbone"], sr="none", to="onnx", device="cpu", tile=((16, 16),), chunk=4
    )
    sizes = []
    for batch in ((1,), (1, 2)):
        manifest = build_bundle(
            replace(request, batch=batch), target=tmp_path / str(len(batch))
        ).manifest
        weights = {name: f for name, f in manifest.files.items() if name.startswith("weights/")}
        sizes.append(sum(f.bytes for f in weights.values()))
    assert sizes[0] == sizes[1] > 0
    one, two = (manifest.components[f"velocity.0.{b}x4x16x16"].files for b in (1, 2))
    assert one[1:] == two[1:] and set(one) <= manifest.files.keys()
    shared = tmp_path / "2" / two[1]
    shared.write_bytes(shared.read_bytes()[:-1] + b"\x55")
    assert damage(tmp_path / "2", manifest) == [f"{two[1]} is damaged: its SHA-256 differs"]
