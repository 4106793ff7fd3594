"""A Wan model, its codec and its prompts as a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.restorer import Restorer
from dtg_restore.export import build as build_module
from dtg_restore.export.build import build_bundle
from dtg_restore.export.key import key_of
from dtg_restore.export.recipe import make_recipe
from dtg_restore.export.request import ExportRequest

diffusers = pytest.importorskip("diffusers", reason="it writes the model, and is not installed")
pytestmark = pytest.mark.usefixtures("cache")

TEXT_DIM = 20
EXACT = 60  # dB to the eager engine, in fp32


def write(module: torch.nn.Module, folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.15, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    module.save_pretrained(folder)


def write_prompts(path: Path, seed: int, tokens: int = 6) -> str:
    generator = torch.Generator().manual_seed(seed)
    names = {"prompt_embeds": tokens, "negative_prompt_embeds": tokens - 1}
    save_file(
        {n: torch.randn(1, length, TEXT_DIM, generator=generator) for n, length in names.items()},
        path,
    )
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pipeline of two experts, without its text encoder."""
    folder = tmp_path_factory.mktemp("wan")
    for seed, name in enumerate(("transformer", "transformer_2")):
        transformer = diffusers.WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=24,
            text_dim=TEXT_DIM,
            freq_dim=32,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            ffn_dim=40,
        )
        write(transformer, folder / name, seed)
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    write(vae, folder / "vae", 2)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "WanPipeline", "boundary_ratio": 0.5})
    )
    return folder


def request(model: Path, prompts: str | None, **settings: Any) -> ExportRequest:
    given: dict[str, Any] = {
        "backbone": str(model),
        "sr": "none",
        "to": "ort",
        "device": "cpu",
        "tile": ((32, 32),),
        "chunk": 5,
        "batch": (1, 2),
        "prompt_embeds": prompts,
    }
    return ExportRequest(**given | settings)


def test_both_experts_codec_and_prompts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_stage(job: Any) -> tuple[Any, ...]:
        (job.folder / job.stage.name).touch()
        return ((job.stage.name,), {}, {}, None)

    monkeypatch.setattr(build_module, "compile_stage", compile_stage)
    prompts, steps = write_prompts(tmp_path / "p.safetensors", 0), []
    built = build_bundle(request(model, prompts, vae_tile=(20, 24)), steps.append)
    manifest = built.manifest
    passes = ("1x5x32x32", "2x5x32x32")
    assert list(manifest.components) == [
        *("condition.0", *(f"velocity.0.{size}" for size in passes)),
        *("condition.1", *(f"velocity.1.{size}" for size in passes)),
        *("encode_first.24x24", "encode_next.24x24"),
        *("decode_first.24x24", "decode_next.24x24"),
    ]
    assert [step.total for step in steps] == 12 * [10] and steps[-1].fraction == 1.0
    backbone, codec = manifest.models["backbone"], manifest.models["codec"]
    assert backbone["tags"] is None and backbone["text_tokens"] == 6
    held, given = load_file(built.folder / backbone["prompts"]), load_file(prompts)
    assert held.keys() == given.keys() and all(held[name].equal(given[name]) for name in held)
    assert (codec["kind"], codec["tile"]) == ("wan", [24, 24])
    assert codec["source"]["path"] == str(model / "vae")
    assert codec["source"]["sha256"] != backbone["source"]["sha256"]


def test_prompts_are_part_of_the_key(model: Path, tmp_path: Path) -> None:
    first, second = (write_prompts(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1))
    again = write_prompts(tmp_path / "again.safetensors", 0)
    a, b, c = (key_of(make_recipe(request(model, path))) for path in (first, second, again))
    assert a == c != b
    with pytest.raises(ConfigError, match="--prompt-embeds"):
        make_recipe(request(model, None))


@pytest.mark.slow
def test_a_bundle_equals_eager(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.safetensors", 0)
    build_bundle(request(model, prompts, batch=(2,)), target=tmp_path / "b")
    frames = torch.rand(7, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    run = {"sr": "none", "device": "cpu", "steps": 2, "t_start": 0.7, "tile_overlap": 8}
    eager = Restorer.load(
        backbone=str(model),
        prompt_embeds=prompts,
        chunk=5,
        tile=(32, 32),
        vae_tile=(32, 32),
        **run,
    )
    bundle = Restorer.load(backbone=str(tmp_path / "b"), **run)
    error = ((bundle.restore(frames) - eager.restore(frames)) ** 2).mean()
    assert -10 * torch.log10(error.clamp_min(1e-12)) >= EXACT
