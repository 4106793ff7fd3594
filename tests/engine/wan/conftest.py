"""Small Wan models with random weights, written by diffusers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle, and not installed")

TEXT_DIM = 20
Write = Callable[..., Any]


def randomise(module: torch.nn.Module, seed: int, std: float = 0.15) -> None:
    """Weights far from zero everywhere, so that nothing is multiplied away."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=std, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def write_transformer() -> Write:
    """Makes diffusers' transformer and writes it to a folder; returns the module."""

    def write(
        folder: Path, heads: int = 2, head_dim: int = 24, seed: int = 0, **settings: Any
    ) -> Any:
        shard = settings.pop("max_shard_size", "10GB")
        sizes = {"in_channels": 16, "out_channels": 16, "num_layers": 2, "ffn_dim": 40}
        module = diffusers.WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            text_dim=TEXT_DIM,
            freq_dim=32,
            **(sizes | settings),
        )
        randomise(module, seed)
        module.save_pretrained(folder, max_shard_size=shard)
        return module

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, write_transformer: Write) -> Path:
    """The folder of a whole pipeline: transformer, VAE, index; and a file of prompts."""
    folder = tmp_path_factory.mktemp("wan")
    write_transformer(folder / "transformer")
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    randomise(vae, 1, std=0.2)
    vae.save_pretrained(folder / "vae")
    index = {"_class_name": "WanPipeline", "boundary_ratio": None, "transformer_2": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    generator = torch.Generator().manual_seed(2)
    embeds = {
        name: torch.randn(1, 6, TEXT_DIM, generator=generator)
        for name in ("prompt_embeds", "negative_prompt_embeds")
    }
    save_file(embeds, folder / "prompts.safetensors")
    return folder
