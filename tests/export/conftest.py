"""Fixtures of everything that is exported: executed by ONNX Runtime on the CPU, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniBackbone, MiniConfig, MiniDiT
from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.export.operators import unsupported

TOLERANCE = 1e-4  # of the largest value

Run = Callable[[Path, dict[str, Tensor]], list[Tensor]]
Check = Callable[[Any, Any], None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def onnx() -> Any:
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="session")
def run(onnx: Any) -> Run:
    """All outputs of a file for inputs by name; the file is one that TensorRT would take."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1

    def call(path: Path, inputs: dict[str, Tensor]) -> list[Tensor]:
        assert unsupported(onnx.load(path, load_external_data=False)) == []
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        results = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(result) for result in results]

    return call


@pytest.fixture(scope="session")
def close() -> Check:
    """Asserts that results are those expected, to `TOLERANCE`."""

    def check(results: Any, expected: Any) -> None:
        expected = expected if isinstance(expected, tuple) else (expected,)
        for got, want in zip(results, expected, strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            assert (got - want).abs().max() <= TOLERANCE * want.abs().max()

    return check


@pytest.fixture(scope="session")
def make_mini(random_network: Callable[..., MiniDiT]) -> Callable[..., MiniBackbone]:
    """`mini` with random weights."""

    def make(depth: int = 1, dtype: torch.dtype = torch.float32) -> MiniBackbone:
        return MiniBackbone(random_network(depth, seed=depth), torch.device("cpu"), dtype)

    return make


@pytest.fixture(scope="session")
def wan_network() -> WanDiT:
    """A Wan transformer of one layer with random weights."""
    torch.manual_seed(0)
    network = WanDiT(WanConfig(32, 2, 1, 40, 16, 12, 16, (1, 2, 2))).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.normal_(std=0.15).add_(float("norm" in name and "weight" in name))
    return network


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundles in an empty cache."""
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


def write_backbone(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network = MiniDiT(MiniConfig(width=48, depth=1, heads=2, ffn_dim=96))
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    save_checkpoint(path, network.state_dict(), network.describe(), {})
    return path


def write_sr(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    net = MiniSR(2, width=8, depth=1)
    torch.nn.init.normal_(net.tail.weight, std=0.1)
    save_checkpoint(
        path, net.state_dict(), {"kind": "mini", "scale": 2, "width": 8, "depth": 1}, {}
    )
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two backbones and two SR models by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "backbone": str(write_backbone(folder / "small.safetensors", 0)),
        "other backbone": str(write_backbone(folder / "other.safetensors", 1)),
        "sr": str(write_sr(folder / "sr.safetensors", 0)),
        "other sr": str(write_sr(folder / "other_sr.safetensors", 1)),
    }
