"""ONNX files against the networks that they were made of, executed by ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones import blocks
from dtg_restore.engine.backbones.base import Context
from dtg_restore.engine.backbones.mini import MiniBackbone
from dtg_restore.engine.config import DTG
from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.schedule import nodes
from dtg_restore.engine.sr.frames import FrameSR
from dtg_restore.engine.sr.mini import MiniSR, facts_of
from dtg_restore.export import (
    export_backbone,
    export_sr,
    graph,
    read_metadata,
    to_onnx,
    weights_sha256,
)
from dtg_restore.export.operators import unsupported
from dtg_restore.export.sr import upscale_stage
from dtg_restore.export.stage import Stage
from dtg_restore.export.velocity import INPUTS, flatten, unroll
from dtg_restore.kernels import patch_blocks

CPU = torch.device("cpu")
MakeMini = Callable[..., MiniBackbone]
TILE = (4, 16, 24)  # T, H, W
TOLERANCE = 1e-4  # of the largest value
FORBIDDEN_OPS = {"ScatterND", "ScatterElements", "Loop", "If", "Cast"}
FORBIDDEN_TYPES = {"DOUBLE", "COMPLEX64", "COMPLEX128", "FLOAT16", "BFLOAT16"}


@pytest.fixture(scope="module")
def session(onnx: Any) -> Callable[[Path], Any]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return lambda path: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def make_sr(scale: int = 2) -> FrameSR:
    torch.manual_seed(0)
    network = MiniSR(scale, width=8, depth=1)
    for parameter in network.parameters():  # the last layer starts at zero
        torch.nn.init.normal_(parameter, std=0.2)
    return FrameSR(network, facts_of(network, "small"), CPU)


def prepare(backbone: MiniBackbone) -> tuple[Context, list[Any]]:
    steps = nodes(DTG(t_start=0.6, steps=4, delta0=0.15, alpha0=2.0))
    return backbone.prepare("clean", "null", steps), steps


def export_tile(backbone: MiniBackbone, path: Path, batch: int, **more: Any) -> None:
    frames, height, width = TILE
    export_backbone(backbone, path, batch=batch, frames=frames, height=height, width=width, **more)


def run(session: Any, inputs: dict[str, Tensor]) -> Tensor:
    (result,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(result)


def error(result: Tensor, expected: Tensor) -> float:
    assert result.shape == expected.shape and result.dtype == expected.dtype
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def pair(
    onnx: Any, make_mini: MakeMini, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MiniBackbone, Path]:
    """A backbone of one layer, and its file for both branches in one call."""
    torch.set_num_threads(1)
    # As in a process in which nothing has run: an export must leave no table of its trace behind.
    blocks._made_rope.cache_clear()
    patch_blocks._made.cache_clear()
    backbone, path = make_mini(depth=1), tmp_path_factory.mktemp("onnx") / "pair.onnx"
    export_tile(backbone, path, batch=2)
    return backbone, path


@pytest.fixture(scope="module")
def enlarger(onnx: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[FrameSR, Path]:
    """A network that enlarges four times, and its file for one odd size."""
    model, path = make_sr(scale=4), tmp_path_factory.mktemp("onnx") / "sr.onnx"
    export_sr(model, path, 7, 13)
    return model, path


def test_one_graph_serves_every_step(
    pair: tuple[MiniBackbone, Path], session: Callable[[Path], Any]
) -> None:
    backbone, path = pair
    graph, (context, steps) = session(path), prepare(backbone)
    x = torch.randn(2, 3, *TILE)
    seen = []
    for index, node in enumerate(steps):
        condition = context.at(index, ("cond", "uncond"), 1)
        t = torch.tensor([node.t, node.tau])
        expected = backbone.velocity(x, t, condition)
        v = unroll(run(graph, flatten(x, t, condition)), condition.phase)
        assert error(v, expected) <= TOLERANCE
        seen.append(v)
    for a, b in itertools.combinations([*seen[0], *seen[1]], 2):
        assert error(a, b) > 100 * TOLERANCE  # the inputs do reach the graph


def test_one_branch_of_two_layers(
    make_mini: MakeMini, session: Callable[[Path], Any], tmp_path: Path
) -> None:
    backbone, path = make_mini(depth=2), tmp_path / "single.onnx"
    export_tile(backbone, path, batch=1, opset=23)  # the newest, with attention as one op
    graph, (context, steps) = session(path), prepare(backbone)
    x = torch.randn(1, 3, *TILE)
    for branch, index in (("cond", 0), ("uncond", 1)):
        t = torch.tensor([steps[index].t if branch == "cond" else steps[index].tau])
        condition = context.at(index, (branch,), 1)
        v = unroll(run(graph, flatten(x, t, condition)), condition.phase)
        assert error(v, backbone.velocity(x, t, condition)) <= TOLERANCE


def test_phase_outside_the_graph_is_exact(make_mini: MakeMini) -> None:
    backbone = make_mini(depth=1)
    context, steps = prepare(backbone)
    x = torch.randn(1, 3, *TILE)
    for index, node in enumerate(steps):
        t, condition = torch.tensor([node.t]), context.at(index, ("cond",), 1)
        rolled = flatten(x, t, condition)["x"]
        v = backbone.velocity(rolled, t, condition._replace(phase=(0, 0, 0)))
        assert unroll(v, condition.phase).equal(backbone.velocity(x, t, condition))


def test_conditioning_of_one_is_repeated(make_mini: MakeMini) -> None:
    backbone = make_mini(depth=2)
    context, steps = prepare(backbone)
    x, t = torch.randn(3, 3, *TILE), torch.full((3,), steps[0].t)
    one, three = (flatten(x, t, context.at(0, ("cond",), repeat)) for repeat in (1, 3))
    assert list(one) == list(INPUTS)
    assert all(one[name].equal(three[name]) for name in INPUTS)


def test_ops_and_types(
    onnx: Any, pair: tuple[MiniBackbone, Path], enlarger: tuple[FrameSR, Path]
) -> None:
    for path in (pair[1], enlarger[1]):
        proto = onnx.shape_inference.infer_shapes(onnx.load(path))
        graph = proto.graph
        assert {node.domain for node in graph.node} == {""} and not proto.functions
        assert FORBIDDEN_OPS.isdisjoint(node.op_type for node in graph.node)
        types = {i.data_type for i in graph.initializer}
        types |= {
            value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.output, *graph.value_info)
        }
        assert FORBIDDEN_TYPES.isdisjoint(map(onnx.TensorProto.DataType.Name, types))
        assert unsupported(proto) == []


def test_metadata(pair: tuple[MiniBackbone, Path], make_mini: MakeMini) -> None:
    backbone, path = pair
    found = read_metadata(path)
    assert (found["kind"], found["name"], found["precision"]) == ("backbone", "mini", "float32")
    assert json.loads(found["config"]) == backbone.network.describe()
    assert json.loads(found["facts"])["patch"] == [2, 8, 8]
    sizes = {"batch": 2, "frames": 4, "height": 16, "width": 24}
    assert json.loads(found["shape"]) == sizes | {"dynamic": False}
    assert found["weights_sha256"] == weights_sha256(make_mini(depth=1).network)


def test_hash_tells_weights_and_types_apart(make_mini: MakeMini) -> None:
    network = make_mini(depth=1).network
    first = weights_sha256(network)
    assert weights_sha256(make_mini(1, torch.bfloat16).network) != first
    network.mean[3] += 1e-3
    assert weights_sha256(network) != first


def test_sr_of_one_odd_size(enlarger: tuple[FrameSR, Path], session: Callable[[Path], Any]) -> None:
    model, path = enlarger
    frames = torch.rand(1, 3, 7, 13)
    result = run(session(path), {"frames": frames})
    assert error(result, model.upscale(frames)) <= TOLERANCE
    found = read_metadata(path)
    assert (found["kind"], found["name"], found["scale"]) == ("sr", "small", "4")
    assert found["weights_sha256"] == weights_sha256(model.module)


def test_sr_of_any_size(onnx: Any, session: Callable[[Path], Any], tmp_path: Path) -> None:
    model, path = make_sr(), tmp_path / "sr.onnx"
    export_sr(model, path, 8, 8, dynamic=True)  # a square must not tie H to W
    graph = session(path)
    for size in ((8, 8), (7, 13), (1, 5), (21, 2)):
        frames = torch.rand(1, 3, *size)
        assert error(run(graph, {"frames": frames}), model.upscale(frames)) <= TOLERANCE


def test_file_is_repeatable_and_holds_no_paths(
    pair: tuple[MiniBackbone, Path], enlarger: tuple[FrameSR, Path], tmp_path: Path
) -> None:
    written = enlarger[1].read_bytes()
    export_sr(make_sr(scale=4), tmp_path / "again.onnx", 7, 13)
    assert written == (tmp_path / "again.onnx").read_bytes()
    assert b".py" not in written + pair[1].read_bytes()


def test_weights_beside_the_graph(
    session: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frames = make_sr(), torch.rand(1, 3, 5, 6)
    stage = upscale_stage(model, 5, 6, dynamic=False)
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = to_onnx(stage, tmp_path / name, external=True)
        assert made.files == ("upscale.onnx", "upscale.onnx.data")
        written.append([(tmp_path / name / file).read_bytes() for file in made.files])
        assert made.onnx_sha256 == hashlib.sha256(written[-1][0]).hexdigest()
    assert written[0] == written[1] and len(written[0][1]) > len(written[0][0]) / 2
    result = run(session(tmp_path / "a" / "upscale.onnx"), {"frames": frames})
    assert error(result, model.upscale(frames)) <= TOLERANCE
    assert to_onnx(stage, tmp_path / "b").files == ("upscale.onnx",)  # and none is left behind
    monkeypatch.setattr(graph, "EXTERNAL", 0)  # the same of its own accord
    export_sr(model, tmp_path / "large.onnx", 5, 6)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a", "b", "large.onnx", "large.onnx.data"]
    result = run(session(tmp_path / "large.onnx"), {"frames": frames})
    assert error(result, model.upscale(frames)) <= TOLERANCE


def test_one_tensor_given_twice_is_two_inputs(
    onnx: Any, session: Callable[[Path], Any], tmp_path: Path
) -> None:
    class Difference(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    zeros = torch.zeros(2)
    made = to_onnx(Stage("minus", Difference().eval(), {"a": zeros, "b": zeros}, ("c",)), tmp_path)
    result = run(session(tmp_path / made.files[0]), {"a": torch.ones(2), "b": zeros})
    assert result.equal(torch.ones(2))


def test_failed_export_leaves_the_old_file(
    onnx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sr.onnx"
    path.write_text("old")
    with pytest.raises(InputError, match="exists already"):
        export_sr(make_sr(), path, 5, 6)

    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("no such op")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(EngineError, match="no such op"):
        export_sr(make_sr(), path, 5, 6, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["sr.onnx"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_absent_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    if package != "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=rf"{package} is needed.*dtg-restore\[onnx\]"):
        export_sr(make_sr(), tmp_path / "sr.onnx", 5, 6)
    assert not list(tmp_path.iterdir())


def test_sizes_and_opsets_out_of_range(onnx: Any, make_mini: MakeMini, tmp_path: Path) -> None:
    path = tmp_path / "refused.onnx"
    good = {"batch": 1, "frames": 2, "height": 8, "width": 8}
    for bad in ({"batch": 0}, {"frames": 3}, {"height": 12}, {"width": -8}):
        with pytest.raises(ConfigError, match="2 k .* frames with sides that are multiples of 8"):
            export_backbone(make_mini(), path, **(good | bad))
    with pytest.raises(ConfigError, match="batch is open, and its example is 1"):
        export_backbone(make_mini(), path, **good, dynamic=True)
    for size, dynamic in (((0, 4), False), ((4, 1), True)):
        with pytest.raises(ConfigError, match="height and width"):
            export_sr(make_sr(), path, *size, dynamic=dynamic)
    for opset in (19, 24):
        with pytest.raises(ConfigError, match=f"not {opset}"):
            export_sr(make_sr(), path, 4, 4, opset=opset)
    assert not list(tmp_path.iterdir())


def test_only_networks_of_known_form(tmp_path: Path) -> None:
    class Other:
        facts = make_sr().facts

    with pytest.raises(EngineError, match="small"):
        export_sr(Other(), tmp_path / "other.onnx", 4, 4)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="small"):
        export_backbone(Other(), tmp_path / "other.onnx", batch=1, frames=2, height=8, width=8)  # type: ignore[arg-type]


def test_damaged_file(onnx: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    for name in ("bad.onnx", "absent.onnx"):
        with pytest.raises(EngineError, match=name):
            read_metadata(tmp_path / name)
