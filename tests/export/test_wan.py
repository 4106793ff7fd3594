"""Wan's stages, executed by ONNX Runtime on the CPU, against the backbone itself."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dtg_restore.engine.backbones import load_backbone
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.dit import BRANCHES
from dtg_restore.engine.backbones.wan import WanBackbone
from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.schedule import Node
from dtg_restore.export.stage import Stage
from dtg_restore.export.wan import model, stages

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the largest value
CONFIG = WanConfig(32, 2, 2, 40, 16, 12, 16, (1, 2, 2))
TOKENS = 5
BUCKET = Bucket(5, 32, 48, (1, 2))  # 2 x 4 x 6 latents
NODES = [
    Node(0.93, 0.7, 1.5, 1.5, -0.5),
    Node(0.41, 0.25, 1.3, 1.3, -0.3),
    Node(0.0, 0.0, 1.0, 1.0, 0.0),
]
FORBIDDEN_OPS = {"ScatterND", "ScatterElements", "Loop", "If", "Sin", "Cos", "Range"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_transformer(folder: Path, seed: int) -> None:
    """Random weights on which every input has its effect."""
    torch.manual_seed(seed)
    state = {}
    for name, tensor in WanDiT(CONFIG).state_dict().items():
        state[name] = torch.randn(tensor.shape) * 0.15 + float("norm" in name and "weight" in name)
    patches = state["patch_embedding.weight"]
    state["patch_embedding.weight"] = patches.view(CONFIG.dim, CONFIG.channels, *CONFIG.patch)
    folder.mkdir(parents=True)
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": CONFIG.heads}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two experts, the second from t = 0.6 on, and its prompts."""
    folder = tmp_path_factory.mktemp("wan")
    write_transformer(folder / "transformer_2", 0)
    write_transformer(folder / "transformer", 1)
    index = {"_class_name": "WanPipeline", "boundary_ratio": 0.6}
    (folder / "model_index.json").write_text(json.dumps(index))
    names = ("prompt_embeds", "negative_prompt_embeds")
    save_file(
        {name: torch.randn(1, TOKENS, CONFIG.text_dim) for name in names}, folder / "prompts.st"
    )
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> WanBackbone:
    config = RestoreConfig(backbone=str(folder), prompt_embeds=str(folder / "prompts.st"))
    backbone = load_backbone(config, CPU, dtype)
    assert isinstance(backbone, WanBackbone)
    return backbone


def to_onnx(stage: Stage, opset: int = 20) -> Any:
    """The stage's graph as a ModelProto."""
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
    free = {
        name: {
            axis: torch.export.Dim(open_axis.name, min=open_axis.low, max=open_axis.high)
            for axis, open_axis in stage.open_axes.get(name, {}).items()
        }
        for name in stage.inputs
    }
    with torch.no_grad():
        program = torch.onnx.export(
            stage.module,
            tuple(stage.inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_shapes=tuple(free.values()),
            verbose=False,
        )
    return program.model_proto
