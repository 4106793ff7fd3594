"""TensorRT itself, where it is installed beside a GPU: what no stand-in can show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.runtimes.tensorrt import TensorRTEngine, open_engine, reasons
from dtg_restore.export.calibrate import Calibration, Recorder
from dtg_restore.export.fp8 import fp8_artefact
from dtg_restore.export.mini import condition_stage, velocity_stage
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.refit import refit
from dtg_restore.export.stage import Artefact, OpenAxis, Stage
from dtg_restore.export.tensorrt import TensorRTOptions, to_tensorrt
from dtg_restore.export.timing_cache import timing_file

pytestmark = pytest.mark.tensorrt

SIZE = (2, 4, 16, 24)  # B, T, H, W
# Of the largest value.  fp32 has no TF32 in it; the others round in places of TensorRT's choice.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@pytest.fixture
def gpu() -> torch.device:
    if missing := reasons():
        pytest.skip("; ".join(missing))
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def options(gpu: torch.device) -> TensorRTOptions:
    return TensorRTOptions(device=gpu, level=1)  # a short search


class Net(nn.Module):
    """Matrices, convolutions and a norm, so that kernels of each kind are chosen."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        return nn.functional.gelu(self.linear(self.norm(y)), approximate="tanh")


def net_stage(device: torch.device, seed: int = 0) -> Stage:
    axes = {2: OpenAxis("height", 8, 16, 64), 3: OpenAxis("width", 8, 24, 64)}
    module = Net(seed).to(device).requires_grad_(False).eval()
    return Stage(
        "net", module, {"x": torch.randn(1, 3, 16, 24, device=device)}, ("y",), {"x": axes}
    )


def opened(artefact: Artefact, folder: Path, device: torch.device) -> TensorRTEngine:
    return open_engine(folder / artefact.files[0], Component(*artefact), device)


def difference(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape and got.dtype == want.dtype
    return ((got - want).abs().max() / want.abs().max()).item()


def test_open_sizes(options: TensorRTOptions, tmp_path: Path) -> None:
    stage = net_stage(options.device)
    engine = opened(to_tensorrt(stage, tmp_path, options), tmp_path, options.device)
    for height, width in ((16, 24), (8, 64), (64, 8), (33, 17)):
        x = torch.randn(1, 3, height, width, device=options.device)
        assert difference(engine({"x": x})["y"], stage.module(x)) <= TOLERANCES[torch.float32]
    with pytest.raises(ConfigError, match="was made for"):
        engine({"x": torch.randn(1, 3, 65, 16, device=options.device)})


def test_results_are_the_callers_on_any_stream(options: TensorRTOptions, tmp_path: Path) -> None:
    stage = net_stage(options.device)
    engine = opened(to_tensorrt(stage, tmp_path, options), tmp_path, options.device)
    streams = [torch.cuda.default_stream(options.device), torch.cuda.Stream(options.device)]
    for stream in streams:
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            inputs = [torch.randn(1, 3, 16, 24, device=options.device) for _ in range(8)]
            results = [engine({"x": x})["y"] for x in inputs]
            expected = [stage.module(x) for x in inputs]
        torch.cuda.synchronize()
        for got, want in zip(results, expected, strict=True):
            assert difference(got, want) <= TOLERANCES[torch.float32]
        assert len({result.data_ptr() for result in results}) == len(results)


def test_inputs_lie_in_any_order_and_anywhere(options: TensorRTOptions, tmp_path: Path) -> None:
    stage = net_stage(options.device)
    engine = opened(to_tensorrt(stage, tmp_path, options), tmp_path, options.device)
    many = torch.randn(3, 1, 3, 16, 24, device=options.device)
    turned = torch.randn(1, 16, 24, 3, device=options.device).permute(0, 3, 1, 2)
    shifted = torch.randn(3 * 16 * 24 + 1, device=options.device)[1:].view(1, 3, 16, 24)
    for x in (many[1], turned, shifted):
        assert difference(engine({"x": x})["y"], stage.module(x)) <= TOLERANCES[torch.float32]


def test_recorded_in_a_graph(options: TensorRTOptions, tmp_path: Path) -> None:
    """Two calls in one graph, as of both branches; nothing of the library is left outside it."""
    stage = net_stage(options.device)
    engine = opened(to_tensorrt(stage, tmp_path, options), tmp_path, options.device)
    x = torch.randn(1, 3, 16, 24, device=options.device)
    aside = torch.cuda.Stream(options.device)
    aside.wait_stream(torch.cuda.current_stream(options.device))
    with torch.cuda.stream(aside):
        engine({"x": x})
    torch.cuda.current_stream(options.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first, second = engine({"x": x})["y"], engine({"x": 2 * x})["y"]
    for _ in range(3):
        x.normal_()
        graph.replay()
        assert difference(first, stage.module(x)) <= TOLERANCES[torch.float32]
        assert difference(second, stage.module(2 * x)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_mini(
    options: TensorRTOptions, tmp_path: Path, make_mini: Callable[..., Any], dtype: torch.dtype
) -> None:
    backbone = moved(make_mini(depth=2, dtype=dtype), options.device)
    conditions = condition_stage(backbone)
    engine = opened(to_tensorrt(conditions, tmp_path, options), tmp_path, options.device)
    for num_times in (1, 7, 42):
        times = torch.linspace(0.1, 0.9, num_times, device=options.device)
        inputs = conditions.inputs | {"times": times}
        want = conditions.module(*inputs.values())
        for got, expected in zip(engine(inputs).values(), want, strict=True):
            assert difference(got, expected) <= TOLERANCES[dtype]
    stage = velocity_stage(backbone.network, SIZE)
    engine = opened(to_tensorrt(stage, tmp_path, options), tmp_path, options.device)
    inputs = velocity_inputs(stage)
    want = stage.module(*inputs.values())
    assert difference(engine(inputs)["v"], want) <= TOLERANCES[dtype]


def moved(backbone: Any, device: torch.device) -> Any:
    backbone.network.to(device)
    return type(backbone)(backbone.network, device, backbone.network.patch_embedding.weight.dtype)


def velocity_inputs(stage: Stage) -> dict[str, Tensor]:
    x = torch.randn_like(stage.inputs["x"])
    return stage.inputs | {"x": x, "t": torch.rand_like(stage.inputs["t"])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fp8(
    options: TensorRTOptions, tmp_path: Path, make_mini: Callable[..., Any], dtype: torch.dtype
) -> None:
    if torch.cuda.get_device_capability(options.device) < (8, 9):
        pytest.skip("the GPU does not multiply fp8")
    backbone = moved(make_mini(depth=2, dtype=dtype), options.device)
    stage = velocity_stage(backbone.network, SIZE)
    inputs = velocity_inputs(stage)
    with Recorder() as recorder:
        want = stage.module(*inputs.values())
    amax = {k: {n: x.item() for n, x in seen.items()} for k, seen in recorder.amax.items()}

    def write(stage: Stage, folder: Path) -> Artefact:
        return fp8_artefact(stage, to_onnx(stage, folder), folder, Calibration(amax))

    artefact = to_tensorrt(stage, tmp_path, options, write=write)
    got = opened(artefact, tmp_path, options.device)(inputs)["v"]
    assert 1e-4 < difference(got, want) <= 0.15  # 3 bits of mantissa: it is fp8 indeed


@pytest.mark.parametrize("strip", [False, True])
def test_refit(options: TensorRTOptions, tmp_path: Path, strip: bool) -> None:
    old, new = net_stage(options.device, 0), net_stage(options.device, 1)
    artefact = to_tensorrt(old, tmp_path, replace(options, refit=True, strip=strip))
    x = old.inputs["x"]
    engine = opened(artefact, tmp_path, options.device)
    assert difference(engine({"x": x})["y"], old.module(x)) <= TOLERANCES[torch.float32]
    (tmp_path / "new").mkdir()
    onnx = tmp_path / "new" / to_onnx(new, tmp_path / "new").files[0]
    plan, whole = tmp_path / artefact.files[0], replace_files(artefact)
    for _ in range(2):  # what is refitted can be again
        refit(plan, onnx, plan, options.device)
        engine = open_engine(plan, whole, options.device)
        assert difference(engine({"x": x})["y"], new.module(x)) <= TOLERANCES[torch.float32]


def replace_files(artefact: Artefact) -> Component:
    """A refitted plan has weights of its own, also if it was built without any."""
    return Component(artefact.files[:1], artefact.inputs, artefact.outputs)


@pytest.mark.parametrize("change", ["hardware_compatible", "version_compatible"])
def test_compatible(options: TensorRTOptions, tmp_path: Path, change: str) -> None:
    stage = net_stage(options.device)
    artefact = to_tensorrt(stage, tmp_path, replace(options, **{change: True}))
    got = opened(artefact, tmp_path, options.device)(stage.inputs)["y"]
    assert difference(got, stage.module(*stage.inputs.values())) <= TOLERANCES[torch.float32]


def test_weights_that_could_stay_on_the_host(options: TensorRTOptions, tmp_path: Path) -> None:
    stage = net_stage(options.device)
    artefact = to_tensorrt(stage, tmp_path, replace(options, weight_streaming=True))
    engine = opened(artefact, tmp_path, options.device)
    assert not engine.streams_weights  # these are few enough
    got = engine(stage.inputs)["y"]
    assert difference(got, stage.module(*stage.inputs.values())) <= TOLERANCES[torch.float32]


def test_timings_progress_and_interruption(
    options: TensorRTOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    stage, told = net_stage(options.device), []
    to_tensorrt(stage, tmp_path, options, lambda name, share: told.append((name, share)))
    shares = [share for _, share in told]
    assert shares and shares == sorted(shares) and 0 < shares[-1] <= 1
    assert timing_file(options.device).stat().st_size > 0
    (tmp_path / f"{stage.name}.plan").unlink()

    def refuse(name: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_tensorrt(stage, tmp_path, options, refuse)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


def test_damaged_plan(options: TensorRTOptions, tmp_path: Path) -> None:
    artefact = to_tensorrt(net_stage(options.device), tmp_path, options)
    plan = tmp_path / artefact.files[0]
    plan.write_bytes(plan.read_bytes()[: plan.stat().st_size // 2])
    with pytest.raises(EngineError, match="cannot read"):
        opened(artefact, tmp_path, options.device)
