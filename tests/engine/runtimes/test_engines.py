"""What every runtime owes its caller, in one test for all of them, on a small `mini`.

The runtimes of bundles run here as engines of one component; TensorRT does on a GPU, and everywhere
with a stand-in for its library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.backbones.mini import MiniBackbone, load_mini
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.runtimes import COMPILED, EXECUTORS, RUNTIMES, on_runtime
from dtg_restore.engine.runtimes.base import Component, Engine
from dtg_restore.engine.runtimes.engines import executor, open_engine, reasons
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.schedule import Node
from dtg_restore.export.aot import to_aot
from dtg_restore.export.mini import velocity_stage
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.ort import to_ort
from dtg_restore.export.stage import Artefact, OpenAxis, Stage
from dtg_restore.export.tensorrt import TensorRTOptions, to_tensorrt
from dtg_restore.export.velocity import flatten

CPU = torch.device("cpu")
SIZE = (2, 4, 16, 24)  # B, T, H, W
NODES = [Node(0.4 - 0.1 * i, 0.3 - 0.1 * i, 1.5, 1.5, -0.5) for i in range(4)]
TOLERANCE = 1e-5  # of the largest value
STAND_IN = "tensorrt, a stand-in"
ENGINES = ["onnx", "ort", "aot", STAND_IN]
ENGINES += [pytest.param("tensorrt", marks=pytest.mark.tensorrt)]

Call = Callable[[Tensor, Tensor, Any], Tensor]  # x, t, condition


def compile_stage(label: str, stage: Stage, folder: Path, device: torch.device) -> Artefact:
    if label == "aot":
        return to_aot(stage, folder, device)
    if label.startswith("tensorrt"):
        return to_tensorrt(stage, folder, TensorRTOptions(device=device))
    artefact = to_onnx(stage, folder)
    return to_ort(artefact, folder, device) if label == "ort" else artefact


def device_of(label: str) -> torch.device:
    return torch.device("cuda:0" if label == "tensorrt" else "cpu")


class Sharing(nn.Module):
    """Its results are parts of an input, of a constant and of one another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("constant", torch.arange(3.0))

    def forward(self, x: Tensor, times: Tensor) -> tuple[Tensor, ...]:
        y = self.linear(x)
        return y, y.flatten(0, 1), x[:1], self.constant * 1, (2 * times).repeat(2)


def sharing_stage() -> Stage:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 5, 8), "times": torch.rand(4)}
    axes = {"times": {0: OpenAxis("n", 1, 4, 64)}}
    return Stage("sharing", Sharing().eval(), inputs, ("y", "rows", "part", "ends", "n2"), axes)


@pytest.fixture(scope="module")
def compiled(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Path, Component]]:
    """A stage ("velocity" or "sharing") for a runtime, compiled when it is asked for first."""

    @cache
    def compiled(label: str, name: str) -> tuple[Path, Component]:
        folder, device = tmp_path_factory.mktemp("stage"), device_of(label)
        if name == "velocity":
            stage = velocity_stage(load_mini(weights, device, torch.float32).network, SIZE)
        else:
            stage = sharing_stage()
        artefact = compile_stage(label, stage, folder, device)
        assert sorted(artefact.files) == sorted(path.name for path in folder.iterdir())
        return folder, Component(*artefact)

    return compiled


@pytest.fixture
def opened(compiled: Any, request: pytest.FixtureRequest) -> Callable[..., Engine]:
    """Opens a stage for a runtime."""

    def opened(label: str, name: str = "velocity") -> Engine:
        if label == STAND_IN:
            request.getfixturevalue("make_tensorrt")("10.3.0")
        runtime = label.partition(",")[0]
        if missing := reasons(runtime):
            pytest.skip("; ".join(missing))
        if label != "aot":
            pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript")
        if label == "tensorrt" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return open_engine(runtime, *compiled(label, name), device_of(label))

    return opened


@pytest.fixture
def make_call(
    backbone: MiniBackbone, recorder: Any, opened: Callable[..., Engine]
) -> Callable[[str], Call]:
    """The call of a runtime with the signature of `Backbone.velocity`."""

    def make_call(runtime: str) -> Call:
        if runtime == "eager":
            return backbone.velocity
        if runtime == "graph":
            graphed = GraphBackbone(backbone, lambda: recorder)
            return graphed.velocity
        engine = opened(runtime)

        def call(x: Tensor, t: Tensor, condition: Any) -> Tensor:
            assert condition.phase == (0, 0, 0)
            named = flatten(x, t, condition) | {"x": x}  # which flatten rolls, and so copies
            result = engine({name: value.to(engine.device) for name, value in named.items()})["v"]
            return result.to(x.device)

        return call

    return make_call


@pytest.fixture
def backbone(weights: Path) -> MiniBackbone:
    return load_mini(weights, CPU, torch.float32)


def spread(x: Tensor) -> Tensor:
    """The same values with gaps between them, in reverse order of axes."""
    wide = x.permute(*reversed(range(x.ndim))).contiguous().repeat_interleave(2, -1)
    return wide[..., ::2].permute(*reversed(range(x.ndim)))


def error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape and got.dtype == want.dtype
    return ((got - want).abs().max() / want.abs().max()).item()


def states(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, *SIZE[1:], generator=generator) for _ in range(count)]


@pytest.mark.parametrize("lay", [Tensor.contiguous, spread], ids=["in rows", "spread"])
@pytest.mark.parametrize("runtime", ["eager", "graph", *ENGINES])
def test_results_belong_to_the_caller(
    runtime: str, lay: Callable[[Tensor], Tensor], backbone: MiniBackbone, make_call: Any
) -> None:
    """Both calls give what the eager network does, and the second one leaves the first alone."""
    call = make_call(runtime)
    context = backbone.prepare("clean", "null", NODES)
    condition = context.at(0, ("cond", "uncond"), 1)
    t = torch.tensor([NODES[0].t, NODES[0].tau])
    for x in states(2):
        call(x, t, condition)  # the graph is recorded
    first_x, second_x = (lay(x) for x in states(2))
    kept = first_x.clone()
    first = call(first_x, t, condition)
    alone = first.clone()
    second = call(second_x, t, condition)
    assert torch.equal(first, alone) and torch.equal(first_x, kept)
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()
    assert error(second, first) > 100 * TOLERANCE
    for x, result in ((first_x, first), (second_x, second)):
        assert error(result, backbone.velocity(x, t, condition)) <= TOLERANCE


@pytest.mark.parametrize("runtime", ENGINES)
def test_every_input_may_lie_in_any_order(
    runtime: str, backbone: MiniBackbone, opened: Callable[..., Engine]
) -> None:
    engine = opened(runtime)
    condition = backbone.prepare("clean", "null", NODES).at(0, ("cond", "uncond"), 1)
    named = flatten(states(1)[0], torch.tensor([0.4, 0.3]), condition)
    named = {name: tensor.to(engine.device) for name, tensor in named.items()}
    apart = {name: spread(tensor) for name, tensor in named.items()}
    assert not any(tensor.is_contiguous() for tensor in apart.values())
    before = {name: tensor.clone() for name, tensor in apart.items()}
    assert error(engine(apart)["v"], engine(named)["v"]) <= TOLERANCE
    assert all(torch.equal(apart[name], before[name]) for name in apart)


@pytest.mark.parametrize("runtime", ENGINES)
def test_results_share_no_memory(runtime: str, opened: Callable[..., Engine]) -> None:
    engine, stage = opened(runtime, "sharing"), sharing_stage()
    inputs = {name: tensor.to(engine.device) for name, tensor in stage.inputs.items()}
    results = engine(inputs)
    want = stage.module(*stage.inputs.values())
    assert list(results) == list(stage.outputs)
    for result, expected in zip(results.values(), want, strict=True):
        assert result.is_contiguous() and error(result.cpu(), expected) <= TOLERANCE
    with torch.inference_mode():  # who owns memory may write to it
        for number, result in enumerate(results.values()):
            result.fill_(number)
    for number, result in enumerate(results.values()):
        assert (result == number).all()
    assert torch.equal(inputs["x"].cpu(), stage.inputs["x"])
    for (name, result), expected in zip(engine(inputs).items(), want, strict=True):
        assert error(result.cpu(), expected) <= TOLERANCE, name


@pytest.mark.parametrize("runtime", ENGINES)
def test_open_axes(runtime: str, opened: Callable[..., Engine]) -> None:
    engine, stage = opened(runtime, "sharing"), sharing_stage()
    assert engine.inputs["times"].shape == ("n",) and engine.outputs["n2"].shape == ("2*n",)
    for count in (1, 64):
        times = torch.rand(count)
        inputs = {"x": stage.inputs["x"].to(engine.device), "times": times.to(engine.device)}
        assert error(engine(inputs)["n2"].cpu(), (2 * times).repeat(2)) <= TOLERANCE


@pytest.mark.parametrize("runtime", ENGINES)
def test_what_does_not_fit_is_refused(runtime: str, opened: Callable[..., Engine]) -> None:
    engine, stage = opened(runtime, "sharing"), sharing_stage()
    good = {name: tensor.to(engine.device) for name, tensor in stage.inputs.items()}
    for change, message in (
        ({"x": good["x"][:, :4]}, r"input x is \(2, 4, 8\), not \(2, 5, 8\)"),
        ({"x": good["x"].double()}, "input x is of torch.float64, and must be of float32"),
        ({"z": good["x"]}, "the inputs are x, times, not x, times, z"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine(good | change)


@pytest.mark.parametrize("runtime", ["onnx", "ort", "aot"])
@pytest.mark.parametrize("content", [None, b"", b"PK\3\4 cut short"], ids=["none", "empty", "cut"])
def test_damaged_files(runtime: str, content: bytes | None, tmp_path: Path) -> None:
    if runtime != "aot":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if content is not None:
        (tmp_path / "part").write_bytes(content)
    with pytest.raises(EngineError, match="part"):
        open_engine(runtime, tmp_path, Component(("part",), {}, {}), CPU)


def test_executors() -> None:
    assert set(EXECUTORS) <= COMPILED == {entry.name for entry in RUNTIMES} - {"eager", "graph"}
    assert executor("auto", "onnx") == "onnx" and executor("ort-tensorrt", "onnx") == "ort-tensorrt"
    assert executor("auto", "ort") == executor("ort", "ort") == "ort"
    for runtime, made_for in (("eager", "aot"), ("onnx", "ort"), ("aot", "tensorrt")):
        with pytest.raises(ConfigError, match=f"runtime is '{runtime}'.* for {made_for} "):
            executor(runtime, made_for)


@pytest.mark.parametrize("runtime", ["eager", "graph"])
def test_only_engines_open_components(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="executes no compiled models"):
        open_engine(runtime, tmp_path, Component(("part",), {}, {}), CPU)


@pytest.mark.parametrize("runtime", sorted(COMPILED))
def test_a_model_that_is_no_bundle(runtime: str, backbone: MiniBackbone) -> None:
    with pytest.raises(ConfigError, match=f"'{runtime}': it executes bundles, and mini is none"):
        on_runtime(RestoreConfig(runtime=runtime), backbone)
