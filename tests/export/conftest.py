"""Small models as files, and a cache of their own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.sr.mini import MiniSR


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
