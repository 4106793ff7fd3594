"""Plans of TensorRT: built, opened, executed and refitted through the stand-in of the library."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.bundle.hashes import file_facts, file_sha256
from dtg_restore.engine.bundle.manifest import (
    Component,
    Manifest,
    read_manifest,
    write_manifest,
)
from dtg_restore.engine.errors import ConfigError, EngineError, Interrupted
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.tensorrt import TensorRTEngine, open_engine
from dtg_restore.export import recipe
from dtg_restore.export import tensorrt as built
from dtg_restore.export.build import build_bundle
from dtg_restore.export.graph import OPSET, weights_sha256
from dtg_restore.export.monitor import Phases
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.refit import refit, refit_component
from dtg_restore.export.request import ExportRequest
from dtg_restore.export.stage import Artefact, OpenAxis, Stage
from dtg_restore.export.tensorrt import TensorRTOptions, to_tensorrt
from dtg_restore.export.timing_cache import timing_file

ToOnnx = Callable[[Stage, Path], Artefact]
CPU = torch.device("cpu")
HERE = TensorRTOptions(device=CPU)


@pytest.fixture(scope="module", autouse=True)
def onnx_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToOnnx]:
    """`to_onnx`, by which each stage is traced once; that takes most of the time here."""
    folder, known = tmp_path_factory.mktemp("onnx"), {}

    def cached(stage: Stage, target: Path, opset: int = OPSET) -> Artefact:
        weights = weights_sha256(stage.module)
        place = folder / f"{stage.name}-{weights[:8]}-{bool(stage.open_axes)}-{opset}"
        if place not in known:
            place.mkdir()
            known[place] = to_onnx(stage, place, opset)
        for file in known[place].files:
            shutil.copyfile(place / file, target / file)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "to_onnx", cached)
        yield cached


class Affine(nn.Module):
    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.weight + self.shift, torch.sin(times)


def make_stage(seed: int = 0, is_open: bool = False, name: str = "velocity.0.1x4x8x8") -> Stage:
    rows = OpenAxis("rows", 2, 3, 16)
    return Stage(
        name,
        Affine(seed).eval(),
        {"x": torch.randn(2, 3, 4), "times": torch.rand(3)},
        ("v", "waves"),
        {"x": {1: rows}, "times": {0: rows}} if is_open else {},
    )


def opened(folder: Path, artefact: Artefact) -> TensorRTEngine:
    component = Component(*artefact)
    return open_engine(folder / component.files[0], component, CPU)


def facts_of(plan: Path) -> dict[str, Any]:
    return json.loads(plan.read_bytes().partition(b"\n")[0])


def assert_equal(results: dict[str, Tensor], stage: Stage, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        expected = stage.module(*inputs.values())
    assert list(results) == list(stage.outputs)
    for got, want in zip(results.values(), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_plan_computes_what_the_module_does(tensorrt: Any, tmp_path: Path, onnx_of: ToOnnx) -> None:
    stage = make_stage()
    artefact = to_tensorrt(stage, tmp_path, HERE)
    assert artefact.files == (f"{stage.name}.plan",)
    assert artefact.onnx_sha256 == onnx_of(stage, tmp_path.parent).onnx_sha256
    assert [file.name for file in tmp_path.iterdir()] == list(artefact.files)
    engine = opened(tmp_path, artefact)
    assert_equal(engine(stage.inputs), stage, stage.inputs)


def test_results_are_the_callers(tensorrt: Any, tmp_path: Path) -> None:
    stage = make_stage()
    engine = opened(tmp_path, to_tensorrt(stage, tmp_path, HERE))
    other = {name: value + 1 for name, value in stage.inputs.items()}
    first = engine(stage.inputs)
    kept = {name: value.clone() for name, value in first.items()}
    second = engine(other)
    for name in stage.outputs:
        assert first[name].equal(kept[name]) and not first[name].equal(second[name])
    assert_equal(second, stage, other)


def test_open_axes(tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage(is_open=True)
    artefact = to_tensorrt(stage, tmp_path, HERE)
    profile = facts_of(tmp_path / artefact.files[0])["profile"]
    assert profile["x"] == [[2, 2, 4], [2, 3, 4], [2, 16, 4]] and profile["times"][2] == [16]
    engine = opened(tmp_path, artefact)
    for rows in (3, 16, 2, 2):
        inputs = {"x": torch.randn(2, rows, 4), "times": torch.rand(rows)}
        assert_equal(engine(inputs), stage, inputs)
    with pytest.raises(ConfigError, match=r"\(2, 17, 4\).* for \(2, 2, 4\) to \(2, 16, 4\)"):
        engine({"x": torch.randn(2, 17, 4), "times": torch.rand(17)})
    with pytest.raises(ConfigError, match="times"):
        engine({"x": torch.randn(2, 3, 4), "times": torch.rand(4)})
    assert_equal(engine(inputs), stage, inputs)
    with monkeypatch.context() as patch:
        plain = tensorrt.IExecutionContext.set_input_shape
        patch.setattr(
            tensorrt.IExecutionContext,
            "set_input_shape",
            lambda context, name, shape: name != "times" and plain(context, name, shape),
        )
        with pytest.raises(EngineError, match=r"refuses input times of \(5\)"):
            engine({"x": torch.randn(2, 5, 4), "times": torch.rand(5)})
    assert_equal(engine(inputs), stage, inputs)  # nothing is left of what was refused


def test_options(tensorrt: Any, tmp_path: Path) -> None:
    options = replace(
        HERE, level=5, workspace=1 << 20, refit=True, weight_streaming=True,
        hardware_compatible=True,
    )  # fmt: skip
    (plan,) = to_tensorrt(make_stage(), tmp_path, options).files
    facts = facts_of(tmp_path / plan)
    assert facts["level"] == 5 and facts["workspace"] == 1 << 20 and facts["hardware"] == 1
    assert facts["refittable"] and facts["streamable"] and not facts["tf32"]
    facts = facts_of(tmp_path / to_tensorrt(make_stage(), tmp_path, HERE).files[0])
    assert facts["level"] == 3 and facts["workspace"] is None and facts["hardware"] == 0
    assert not (facts["refittable"] or facts["streamable"] or facts["tf32"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 6},
        {"workspace": 0},
        {"version_compatible": True, "refit": True},
        {"version_compatible": True, "strip": True},
    ],
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TensorRTOptions(**wrong)


def test_plan_for_later_versions(tensorrt: Any, tmp_path: Path) -> None:
    stage = make_stage()
    plain = to_tensorrt(stage, tmp_path, HERE)
    lasting = to_tensorrt(
        replace(stage, name="lasting"), tmp_path, replace(HERE, version_compatible=True)
    )
    tensorrt.__version__ = "11.9.0"
    with pytest.raises(EngineError, match=r"11\.9\.0 cannot read .*plan: .*version 1[01]\.[34]"):
        opened(tmp_path, plain)
    assert_equal(opened(tmp_path, lasting)(stage.inputs), stage, stage.inputs)


def test_refit(tensorrt: Any, tmp_path: Path, onnx_of: ToOnnx) -> None:
    old, new = make_stage(0), make_stage(1)
    artefact = to_tensorrt(old, tmp_path, replace(HERE, refit=True))
    onnx = tmp_path / onnx_of(new, tmp_path).files[0]
    plan = tmp_path / artefact.files[0]
    for target in (tmp_path / "other.plan", plan, plan):  # what is refitted can be again
        refit(plan, onnx, target, CPU)
        engine = open_engine(target, Component(*artefact), CPU)
        assert_equal(engine(old.inputs), new, old.inputs)


def test_refit_of_what_does_not_fit(tensorrt: Any, tmp_path: Path, onnx_of: ToOnnx) -> None:
    stage = make_stage()
    artefact = to_tensorrt(stage, tmp_path, replace(HERE, refit=True))
    plan, before = tmp_path / artefact.files[0], (tmp_path / artefact.files[0]).read_bytes()
    other = Stage("other", nn.Linear(4, 5).eval(), {"x": torch.rand(2, 4)}, ("y",))
    onnx = tmp_path / onnx_of(other, tmp_path).files[0]
    with pytest.raises(EngineError, match="does not have the weights .*no such weights"):
        refit(plan, onnx, plan, CPU)
    with pytest.raises(EngineError, match="cannot read the file"):
        refit(plan, plan, plan, CPU)
    assert plan.read_bytes() == before
    fixed = to_tensorrt(stage, tmp_path, HERE)
    with pytest.raises(EngineError, match="not built to be given other weights"):
        refit(tmp_path / fixed.files[0], onnx, plan, CPU)


def make_bundle(folder: Path, artefact: Artefact, name: str) -> None:
    files = {f: file_facts(folder / f)
             for f in artefact.files}  # fmt: skip
    write_manifest(
        folder,
        Manifest(
            "key", "tensorrt", "cuda", "fp32", {}, {name: Component(*artefact)}, {}, {}, files
        ),
    )


@pytest.mark.parametrize("strip", [False, True])
def test_refit_of_a_component(tensorrt: Any, tmp_path: Path, onnx_of: ToOnnx, strip: bool) -> None:
    old, new, bundle = make_stage(0), make_stage(1), tmp_path / "bundle"
    bundle.mkdir()
    artefact = to_tensorrt(old, bundle, replace(HERE, refit=True, strip=strip))
    make_bundle(bundle, artefact, old.name)
    onnx = tmp_path / onnx_of(new, tmp_path).files[0]
    refit_component(bundle, old.name, onnx, CPU)
    manifest = read_manifest(bundle)
    component = manifest.components[old.name]
    assert manifest.key != "key" and component.onnx_sha256 == file_sha256(onnx)
    for file, facts in manifest.files.items():
        assert facts.sha256 == file_sha256(bundle / file)
        assert facts.bytes == (bundle / file).stat().st_size
    assert sorted(f.name for f in bundle.iterdir()) == sorted([*artefact.files, "manifest.json"])
    engine = open_engine(bundle / component.files[0], component, CPU)
    assert_equal(engine(old.inputs), new, old.inputs)
    with pytest.raises(ConfigError, match="not 'upscale'"):
        refit_component(bundle, "upscale", onnx, CPU)


def test_plan_without_weights(tensorrt: Any, tmp_path: Path) -> None:
    stage = make_stage()
    artefact = to_tensorrt(stage, tmp_path, replace(HERE, strip=True))
    assert artefact.files == (f"{stage.name}.plan", f"{stage.name}.onnx")
    assert_equal(opened(tmp_path, artefact)(stage.inputs), stage, stage.inputs)
    bare = Component(artefact.files[:1], artefact.inputs, artefact.outputs)
    with pytest.raises(EngineError, match="cannot prepare the plan: The plan has no weights"):
        open_engine(tmp_path / artefact.files[0], bare, CPU)


def test_operators_are_checked_before_the_parser(tensorrt: Any, tmp_path: Path) -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.bernoulli(x)

    stage = Stage("draws", Draws().eval(), {"x": torch.rand(2, 3)}, ("y",))
    with pytest.raises(EngineError, match="draws: Bernoulli is not supported"):
        to_tensorrt(stage, tmp_path, HERE)
    assert not list(tmp_path.iterdir())


def test_what_the_parser_says_is_said(
    tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [tensorrt.ParserError("no importer", f"node_{n}", "Sin") for n in range(2)]

    def refuse(self: Any, model: str) -> bool:
        self._errors += errors
        return False

    monkeypatch.setattr(tensorrt.OnnxParser, "parse_from_file", refuse)
    with pytest.raises(EngineError, match="Sin node_0: no importer; Sin node_1: no importer"):
        to_tensorrt(make_stage(), tmp_path, HERE)
    assert not list(tmp_path.iterdir())


def test_what_the_builder_says_is_said(
    tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, network: Any, config: Any) -> None:
        self._logger.log(tensorrt.ILogger.WARNING, "a remark")
        self._logger.log(tensorrt.ILogger.ERROR, "no kernel fits")

    monkeypatch.setattr(tensorrt.Builder, "build_serialized_network", refuse)
    with pytest.raises(EngineError, match=r"cannot build velocity\.0\.1x4x8x8: no kernel fits$"):
        to_tensorrt(make_stage(), tmp_path, HERE)
    assert not list(tmp_path.iterdir())


def test_whole_bundle(
    make_tensorrt: Callable[[str], Any],
    small: dict[str, str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_tensorrt("11.4.0.106")
    monkeypatch.setattr(recipe, "_needs", lambda *_: {"tensorrt": "11.4.0.106"})
    told: list[Any] = []
    models = {name: small[name] for name in ("backbone", "sr")}
    request = ExportRequest(
        **models, to="tensorrt", device="cpu", tile=((16, 16),), chunk=4, batch=(1,), refit=True
    )
    folder = build_bundle(request, told.append, target=tmp_path / "bundle").folder
    manifest = read_manifest(folder)
    assert manifest.runtime == "tensorrt"
    assert {f for c in manifest.components.values() for f in c.files} == {
        f"{name}.plan" for name in manifest.components
    }
    shares = [step.fraction for step in told]
    assert shares == sorted(shares) and len(shares) > 2 * len(manifest.components)
    frames = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"steps": 2, "chunk": 4, "overlap": 2, "tile": (16, 16)}
    eager = Restorer.load(**models, device="cpu", dtype="fp32", **settings).restore(frames)
    compiled = Restorer.open(folder, runtime="tensorrt", **settings).restore(frames)
    assert eager.shape == (4, 3, 32, 32) and (compiled - eager).abs().max() < 1e-4


# -- timings --------------------------------------------------------------------------------------


@pytest.fixture
def timings(tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    path = timing_file(CPU)
    assert path.name == f"some-gpu-80-gb-sm90-{tensorrt.__version__}.bin"
    return path


def entries(path: Path) -> set[str]:
    return set(json.loads(path.read_bytes())["entries"])


def test_timings_are_kept_and_used(
    tensorrt: Any, tmp_path: Path, timings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_tensorrt(make_stage(), tmp_path, HERE)
    first = entries(timings)
    assert {"MatMul", "Sin"} <= first
    seen = []
    plain = tensorrt.Builder.build_serialized_network

    def build(self: Any, network: Any, config: Any) -> Any:
        seen.append(set(config._cache._entries))
        # Another process ends its build meanwhile.
        timings.write_text(json.dumps({"version": tensorrt.__version__, "entries": ["Other"]}))
        return plain(self, network, config)

    monkeypatch.setattr(tensorrt.Builder, "build_serialized_network", build)
    to_tensorrt(make_stage(), tmp_path, HERE)
    assert seen == [first] and entries(timings) == first | {"Other"}
    assert sorted(f.name for f in timings.parent.iterdir()) == [
        timings.name,
        f"{timings.name}.lock",
    ]


@pytest.mark.parametrize("content", ["no cache", '{"version": "9.0", "entries": ["Old"]}'])
def test_timings_of_no_use_are_replaced(
    tensorrt: Any, tmp_path: Path, timings: Path, content: str
) -> None:
    timings.parent.mkdir(parents=True)
    timings.write_text(content)
    to_tensorrt(make_stage(), tmp_path, HERE)
    assert "Sin" in entries(timings) and "Old" not in entries(timings)


# -- progress -------------------------------------------------------------------------------------


def test_progress(tensorrt: Any, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    stage = make_stage()
    to_tensorrt(stage, tmp_path, HERE, lambda name, share: told.append((name, share)))
    shares = [share for _, share in told]
    assert {name for name, _ in told} == {stage.name}
    assert shares == sorted(shares) and shares[0] == pytest.approx(1 / 8) and shares[-1] == 1


def test_phases_that_nobody_announced() -> None:
    phases = Phases()
    phases.complete("unknown", 3)
    assert phases.share == 0
    phases.start("whole", None, 2)
    phases.complete("whole", 0)
    phases.start("part", "whole", 4)
    phases.start("inner", "part", 1)
    phases.start("next", "whole", 4)  # the part was never closed
    phases.complete("next", 1)
    assert phases.share == pytest.approx(1 / 2 + 1 / 2 * 2 / 4)
    phases.finish("whole")
    phases.start("another", None, 10)
    phases.complete("another", 0)
    assert phases.share == pytest.approx(3 / 4)


def test_progress_that_raises_ends_the_build(tensorrt: Any, tmp_path: Path) -> None:
    calls = []

    def cancel(name: str, share: float) -> None:
        calls.append(share)
        raise Interrupted("cancelled")

    with pytest.raises(Interrupted, match="cancelled"):
        to_tensorrt(make_stage(), tmp_path, HERE, cancel)
    assert len(calls) == 1 and not list(tmp_path.iterdir())


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)
def test_signal_ends_the_build(tensorrt: Any, tmp_path: Path) -> None:
    """The handler runs in the main thread, while the library works in another one."""
    tensorrt.SECONDS, tensorrt.NUM_STEPS = 0.005, 400
    told = []

    def interrupt(name: str, share: float) -> None:
        told.append(share)
        if len(told) == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            to_tensorrt(make_stage(), tmp_path, HERE, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert told[-1] < 0.5 and not list(tmp_path.iterdir())
