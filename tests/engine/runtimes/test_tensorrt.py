"""Plans of TensorRT through the stand-in of the library: what is bound, where, and what is said."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.runtimes import tensorrt as runtime
from dtg_restore.engine.runtimes.base import Component, TensorSpec
from dtg_restore.engine.runtimes.engines import open_engine as open_by_name
from dtg_restore.engine.runtimes.tensorrt import TensorRTEngine, open_engine

CPU = torch.device("cpu")
FACTS: dict[str, Any] = {
    "version_compatible": False,
    "refittable": False,
    "stripped": False,
    "streamable": 0,
    "profile": {},
}
DOUBLES = Component(
    ("doubles.plan",),
    {"x": TensorSpec((2, 3), "float32"), "n": TensorSpec((4,), "int64")},
    {"twice": TensorSpec((2, 3), "float32"), "more": TensorSpec((4,), "int64")},
)


@pytest.fixture
def plan(tensorrt: Any, tmp_path: Path) -> Callable[..., Path]:
    """A plan that doubles numbers, as a file."""

    def plan(**facts: Any) -> Path:
        from onnx import TensorProto, helper

        def value(name: str, kind: int, shape: list[int]) -> Any:
            return helper.make_tensor_value_info(name, kind, shape)

        floats, numbers = TensorProto.FLOAT, TensorProto.INT64
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["twice"]),
             helper.make_node("Add", ["n", "n"], ["more"])],
            "doubles",
            [value("x", floats, [2, 3]), value("n", numbers, [4])],
            [value("twice", floats, [2, 3]), value("more", numbers, [4])],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = tmp_path / "doubles.plan"
        path.write_bytes(tensorrt._plan(FACTS | {"version": tensorrt.__version__} | facts, model))
        return path

    return plan


@pytest.fixture
def engine(plan: Callable[..., Path]) -> TensorRTEngine:
    return open_engine(plan(), DOUBLES, CPU)


def inputs() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(2, 3), "n": torch.randint(9, (4,))}


def test_opened_by_name(plan: Callable[..., Path]) -> None:
    engine = open_by_name("tensorrt", plan().parent, DOUBLES, CPU)
    given = inputs()
    results = engine(given)
    assert results["twice"].equal(2 * given["x"]) and results["more"].equal(2 * given["n"])
    assert (engine.inputs, engine.outputs) == (DOUBLES.inputs, DOUBLES.outputs)


def test_inputs_lie_in_any_order_and_anywhere(engine: TensorRTEngine) -> None:
    turned = torch.randn(3, 2).T
    within = torch.randn(7)[1:].view(2, 3)  # begins between two aligned places
    for x in (turned, within):
        before = x.clone()
        assert engine({"x": x, "n": torch.arange(4)})["twice"].equal(2 * x)
        assert x.equal(before)


def test_what_stays_in_place_is_bound_once(engine: TensorRTEngine, tensorrt: Any) -> None:
    bound: list[str] = []
    context = engine._context

    class Watch:
        def set_tensor_address(self, name: str, memory: int) -> bool:
            bound.append(name)
            return context.set_tensor_address(name, memory)

        def __getattr__(self, name: str) -> Any:
            return getattr(context, name)

    engine._context = Watch()
    given = inputs()
    kept = [engine(given), engine(given), engine(given | {"x": given["x"].clone()})]
    # The results are kept, so each call has new memory for them.
    assert sorted(bound[:4]) == ["more", "n", "twice", "x"]
    assert sorted(bound[4:]) == ["more", "more", "twice", "twice", "x"]
    assert len({result["twice"].data_ptr() for result in kept}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 2)}, r"input x is \(3, 2\), not \(2, 3\)"),
        ({"x": torch.zeros(2, 3, dtype=torch.float16)}, "input x .*float32"),
        ({"y": torch.zeros(1)}, "the inputs are x, n, not x, n, y"),
    ],
)
def test_other_inputs(engine: TensorRTEngine, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine(inputs() | change)


def test_own_stream_beside_the_default_one(engine: TensorRTEngine) -> None:
    streams = watch_streams(engine)
    default = torch.cuda.default_stream(CPU)
    engine(inputs())
    assert streams == [7]
    assert default.waits[-2:] == ["aside for default", "default for aside"]


def test_the_callers_stream(engine: TensorRTEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = watch_streams(engine)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=42)
    )
    before = list(torch.cuda.default_stream(CPU).waits)
    engine(inputs())
    assert streams == [42] and torch.cuda.default_stream(CPU).waits == before


def watch_streams(engine: TensorRTEngine) -> list[int]:
    seen: list[int] = []
    context = engine._context

    class Watch:
        def execute_async_v3(self, stream_handle: int) -> bool:
            seen.append(stream_handle)
            return context.execute_async_v3(stream_handle)

        def __getattr__(self, name: str) -> Any:
            return getattr(context, name)

    engine._context = Watch()
    return seen


def test_failed_pass_says_why(engine: TensorRTEngine, tensorrt: Any) -> None:
    engine._scratch = tensorrt.SCRATCH - 1
    for _ in range(2):  # nothing is left of what was said before
        with pytest.raises(EngineError, match="cannot execute the plan: too little memory$"):
            engine(inputs())


def test_weights_that_do_not_fit(
    plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(plan(streamable=1000), DOUBLES, CPU)
    assert engine.streams_weights and engine._engine.weight_streaming_budget_v2 == 500
    engine(inputs())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        engine(inputs())
    engine = open_engine(plan(), DOUBLES, CPU)
    assert not engine.streams_weights and engine(inputs())


def test_weights_that_fit(
    plan: Callable[..., Path], tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tensorrt.ICudaEngine, "get_weight_streaming_automatic_budget", lambda engine: 1 << 40
    )
    engine = open_engine(plan(streamable=1000), DOUBLES, CPU)
    assert not engine.streams_weights and engine._engine.weight_streaming_budget_v2 == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"x": DOUBLES.inputs["x"]}}, "its inputs are x, n, not x"),
        ({"outputs": DOUBLES.inputs}, "its outputs are twice, more, not x, n"),
        (
            {"inputs": DOUBLES.inputs | {"x": TensorSpec((2, "w"), "float32")}},
            r"input x is float32 \(2, 3\), not float32 \(2, -1\)",
        ),
        (
            {"outputs": DOUBLES.outputs | {"more": TensorSpec((4,), "int32")}},
            r"output more is int64 \(4,\), not int32 \(4,\)",
        ),
    ],
)
def test_plan_of_another_component(
    plan: Callable[..., Path], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=f"not what the bundle says: .*{message}"):
        open_engine(plan(), replace(DOUBLES, **change), CPU)


@pytest.mark.parametrize(("content", "reason"), [(b"not a plan", "Magic tag"), (b"", "empty")])
def test_damaged_plan(tensorrt: Any, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "damaged.plan"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"cannot (be )?read.*damaged\.plan|damaged.*{reason}"):
        open_engine(path, DOUBLES, CPU)
    with pytest.raises(EngineError, match="absent"):
        open_engine(tmp_path / "absent.plan", DOUBLES, CPU)


def test_absent_library(tensorrt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"not installed .*dtg-restore\[trt\]"):
        open_engine(Path("any.plan"), DOUBLES, CPU)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.post1"])
def test_old_library(tensorrt: Any, version: str) -> None:
    tensorrt.__version__ = version
    with pytest.raises(EngineError, match=rf"{version}, and 10\.3 is the oldest"):
        open_engine(Path("any.plan"), DOUBLES, CPU)


def test_what_the_library_says_is_logged(tensorrt: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dtg_restore.tensorrt"):
        for severity in tensorrt.ILogger.Severity:
            runtime.bridge().log(severity, f"{severity.name} \n")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "INTERNAL_ERROR"),
        ("DEBUG", "ERROR"),
        ("INFO", "WARNING"),
        ("DEBUG", "INFO"),
    ]
    assert str(runtime.failure("it failed")) == "it failed: INTERNAL_ERROR; ERROR"
    assert str(runtime.failure("it failed")) == "it failed"
