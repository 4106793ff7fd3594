"""ONNX Runtime: types, threads, and what its providers on a GPU are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.runtimes import ort as module
from dtg_restore.engine.runtimes.base import Component, TensorSpec
from dtg_restore.engine.runtimes.ort import (
    ELEMENTS,
    open_engine,
    open_with_tensorrt,
    provider_options,
    session_options,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")
STREAM = SimpleNamespace(cuda_stream=77)
Write = Callable[[torch.dtype], tuple[Path, Component]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A graph that hands its input on, as a file."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    def write(dtype: torch.dtype) -> tuple[Path, Component]:
        values = [
            onnx.helper.make_tensor_value_info(name, ELEMENTS[dtype], ["n", 3])
            for name in ("given", "result")
        ]
        node = onnx.helper.make_node("Identity", ["given"], ["result"])
        graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:])
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        )
        path = tmp_path / f"{dtype}.onnx"
        onnx.save(model, path)
        spec = TensorSpec(("n", 3), str(dtype).removeprefix("torch."))
        return path, Component((path.name,), {"given": spec}, {"result": spec})

    return write


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_every_type_is_bound_as_it_is(dtype: torch.dtype, write: Write) -> None:
    engine = open_engine(*write(dtype), CPU)
    given = torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype)
    result = engine({"given": given})["result"]
    assert result.dtype == dtype and torch.equal(result.float(), given.float())


def test_threads_are_those_of_torch(write: Write) -> None:
    write(torch.float32)
    options = session_options("cpu")
    assert options.intra_op_num_threads == torch.get_num_threads() == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_missing_providers_are_named(provider: str, write: Write) -> None:
    path, component = write(torch.float32)
    if "CUDAExecutionProvider" in sys.modules["onnxruntime"].get_available_providers():
        pytest.skip("this ONNX Runtime is one for GPUs")
    with pytest.raises(EngineError, match=r"has no \w+ExecutionProvider: install onnxruntime-gpu"):
        open_engine(path, component, CPU, provider)
    with pytest.raises(EngineError, match="has no TensorrtExecutionProvider"):
        open_with_tensorrt(path, component, CPU)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"onnxruntime is not installed: pip install .*\[onnx\]"):
        session_options("cpu")


def test_a_provider_that_does_not_start(write: Write) -> None:
    """ONNX Runtime says nothing where it falls back to another one."""
    path, _ = write(torch.float32)
    with pytest.raises(EngineError, match="could not start its AzureExecutionProvider"):
        started = [("AzureExecutionProvider", {}), ("CPUExecutionProvider", {})]
        session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
        with pytest.MonkeyPatch.context() as patch:
            library = sys.modules["onnxruntime"]
            patch.setattr(library, "InferenceSession", lambda *_, **__: session)
            module.open_session(path, session_options("cpu"), started)


def test_providers_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTG_CACHE", str(tmp_path))
    spec = TensorSpec((2,), "float32")
    half = Component((), {"x": spec, "keys": TensorSpec((2,), "bfloat16")}, {"v": spec})
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    found = provider_options("tensorrt", half, GPU, STREAM)
    assert [name for name, _ in found] == names
    assert provider_options("cuda", half, GPU, STREAM) == found[1:]
    for _, options in found[:2]:
        assert options["device_id"] == "1" and options["user_compute_stream"] == "77"
    options = found[0][1]
    assert (options["trt_bf16_enable"], options["trt_fp16_enable"]) == ("1", "0")
    assert options["trt_engine_cache_enable"] == "1"
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir() and folder.is_relative_to(tmp_path)
    assert all(isinstance(value, str) for value in options.values())  # others are refused


@pytest.mark.parametrize(("provider", "device"), [("cuda", CPU), ("cpu", GPU)], ids=str)
def test_a_provider_for_another_device(provider: str, device: torch.device) -> None:
    with pytest.raises(EngineError, match=f"{provider} of ONNX Runtime does not compute on"):
        provider_options(provider, Component((), {}, {}), device, STREAM)


class Streams:
    """The order in which streams are made to wait, and sessions run."""

    def __init__(self, log: list[str], name: str):
        self.log, self.name, self.cuda_stream = log, name, 77

    def wait_stream(self, other: Any) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def test_calls_on_a_gpu_are_in_the_order_of_the_callers_stream(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With streams that take notes, and the session of a CPU."""
    path, component = write(torch.float32)
    engine, log = open_engine(path, component, CPU), []
    session = engine._session
    monkeypatch.setattr(engine, "_stream", Streams(log, "its own"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Streams(log, "the caller's"))

    def run(*arguments: Any) -> None:
        log.append("runs")
        session.run_with_iobinding(*arguments)

    noted = SimpleNamespace(io_binding=session.io_binding, run_with_iobinding=run)
    monkeypatch.setattr(engine, "_session", noted)
    given = torch.rand(2, 3)
    result: Tensor = engine({"given": given})["result"]
    assert torch.equal(result, given)
    assert log == ["its own waits for the caller's", "runs", "the caller's waits for its own"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(write: Write) -> None:
    path, component = write(torch.bfloat16)
    library = sys.modules["onnxruntime"]
    if "CUDAExecutionProvider" not in library.get_available_providers():
        pytest.skip("this ONNX Runtime is none for GPUs")
    engine = open_engine(path, component, torch.device("cuda:0"))
    first, second = (torch.rand(2, 3, device="cuda").bfloat16() for _ in range(2))
    with torch.cuda.stream(torch.cuda.Stream()):
        results = [engine({"given": given})["result"] for given in (first, second)]
        assert torch.equal(results[0], first) and torch.equal(results[1], second)
