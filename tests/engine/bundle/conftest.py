"""Miniature bundles, made stage by stage and executed by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.mini import MiniDiT, load_mini
from dtg_restore.engine.bundle.facts import to_json
from dtg_restore.engine.bundle.hashes import file_facts, source_sha256
from dtg_restore.engine.bundle.manifest import Manifest, write_manifest
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.sr import load_sr
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.sr import sr_stage
from dtg_restore.export.stage import Stage
from dtg_restore.export.stages import backbone_model, backbone_stages

CPU = torch.device("cpu")
BUCKETS = (Bucket(4, 16, 24, (2, 4)), Bucket(8, 16, 16, (2,)))

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(
    random_network: Callable[..., MiniDiT], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network = random_network(depth=2)
    save_checkpoint(path, network.state_dict(), network.describe(), {})
    return path


@pytest.fixture(scope="session")
def sr_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "sr.safetensors"
    torch.manual_seed(1)
    network = MiniSR(2, width=8, depth=1)
    for parameter in network.parameters():  # the last layer starts at zero
        torch.nn.init.normal_(parameter, std=0.2)
    config = {"kind": "mini", "scale": 2, "width": 8, "depth": 1}
    save_checkpoint(path, network.state_dict(), config, {})
    return path


def finish(folder: Path, components: dict[str, Component], models: dict[str, Any]) -> None:
    """Write the manifest, with the sums of all files that are in the folder."""
    files = {file.name: file_facts(file) for file in folder.iterdir()}
    manifest = Manifest(
        key="0" * 64,
        runtime="ort",
        device="cpu",
        precision="fp32",
        models=models,
        components=components,
        needs={},
        made_with={},
        files=files,
    )
    write_manifest(folder, manifest)


def compiled(stages: Iterable[Stage], folder: Path) -> dict[str, Component]:
    return {stage.name: Component(*to_onnx(stage, folder)) for stage in stages}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, weights: Path, sr_weights: Path) -> Path:
    """The small networks with engines for `BUCKETS`."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bundle")
    backbone, sr = load_mini(weights, CPU, torch.float32), load_sr(sr_weights)
    stages = [*backbone_stages(backbone, BUCKETS), sr_stage(sr)]
    facts = replace(backbone.facts, buckets=BUCKETS, chunk=4, tile=(24, 16))
    models = {
        "backbone": {
            **backbone_model(backbone),
            "facts": to_json(facts),
            "prompts": None,
            "source": source(weights),
        },
        "codec": {"kind": "pixels"},
        "sr": {"facts": to_json(sr.facts), "source": source(sr_weights)},
    }
    finish(folder, compiled(stages, folder), models)
    return folder


def source(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": source_sha256(path)}


@pytest.fixture
def clip() -> Callable[..., torch.Tensor]:
    """Frames (T, 3, H, W) in [0, 1]: noise, so that no two places are alike."""

    def clip(num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(num_frames, 3, height, width, generator=generator)

    return clip
