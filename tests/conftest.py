"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT


@pytest.fixture(scope="session", autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache: a file stands where its folder would be made."""
    path = tmp_path_factory.mktemp("cache") / "file"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTG_CACHE", str(path))
        yield


@pytest.fixture(scope="session")
def random_network() -> Callable[..., MiniDiT]:
    """Makes a small `mini` whose output is far from zero and depends on x, t, tag and place."""

    def make(depth: int = 1, seed: int = 0) -> MiniDiT:
        torch.manual_seed(seed)
        network = MiniDiT(MiniConfig(width=48, depth=depth, heads=2, ffn_dim=96))
        for name, parameter in network.named_parameters():
            if name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight")):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        torch.nn.init.normal_(network.proj_out.weight, std=0.1)
        torch.nn.init.normal_(network.tag_embedding)
        network.mean.normal_(std=0.1)
        network.sd.uniform_(0.05, 0.8)
        return network.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of clips, photos and weights that lie outside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"test material is absent: {folder}")
    return folder


HOLD = """
import sys, time
from pathlib import Path
from dtg_restore.engine.lock import locked
with locked(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts a process that holds a lock file, to the end of the test or until it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def make_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Puts the stand-in for TensorRT, as that version, in its place; the processor is the GPU."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from dtg_restore.engine.runtimes import tensorrt as runtime

    def make_tensorrt(version: str) -> Any:
        path = Path(__file__).parent / "stand_ins" / "tensorrt.py"
        spec = importlib.util.spec_from_file_location("tensorrt", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        spec.loader.exec_module(module)
        module.__version__ = version
        for name, value in _processor_as_gpu().items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(runtime, "ALIGNMENT", module.ALIGNMENT)
        runtime.bridge.cache_clear()
        return module

    yield make_tensorrt
    runtime.bridge.cache_clear()


@pytest.fixture(params=["10.3.0", "11.4.0.106"])
def tensorrt(request: pytest.FixtureRequest, make_tensorrt: Callable[[str], Any]) -> Any:
    """The stand-in for TensorRT, as either version; the processor is the GPU."""
    return make_tensorrt(request.param)


def _processor_as_gpu() -> dict[str, Any]:
    waits: list[str] = []

    def make_stream(name: str, handle: int) -> SimpleNamespace:
        return SimpleNamespace(
            cuda_stream=handle, wait_stream=lambda other: waits.append(f"{name} for {other.name}"),
            name=name, waits=waits,
        )  # fmt: skip

    default = make_stream("default", 0)
    properties = SimpleNamespace(name="Some GPU (80 GB)", major=9, minor=0)
    return {
        "device": lambda device: contextlib.nullcontext(),
        "Stream": lambda device: make_stream("aside", 7),
        "current_stream": lambda device: default,
        "default_stream": lambda device: default,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "get_device_properties": lambda device: properties,
    }
