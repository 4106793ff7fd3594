"""Wan weights on disk: both key layouts, two experts, what is no text-to-video Wan."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dtg_restore.engine.backbones import facts_of, load_backbone, locate
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.schedule import Node

CPU = torch.device("cpu")
TEXT_DIM = 20
NODES = [Node(0.95, 0.6, 1.5, 1.5, -0.5), Node(0.3, 0.2, 1.5, 1.5, -0.5), Node(0, 0, 1, 1, 0)]
Write = Callable[..., Any]

# diffusers' names to the original ones, written down apart from the engine's own table.
TO_ORIGINAL = [
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    ("to_out.0", "o"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("norm2", "norm3"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
]


def to_original(key: str) -> str:
    for theirs, original in TO_ORIGINAL:
        key = re.sub(rf"\b{re.escape(theirs)}\b", original, key)
    if key == "scale_shift_table":
        return "head.modulation"
    return key.replace("scale_shift_table", "modulation")


def original_state(folder: Path) -> dict[str, Tensor]:
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    return {to_original(key): tensor for key, tensor in state.items()}


@pytest.fixture
def embeds(tmp_path: Path) -> str:
    generator = torch.Generator().manual_seed(0)
    names = ("prompt_embeds", "negative_prompt_embeds")
    tensors = {name: torch.randn(1, 4, TEXT_DIM, generator=generator) for name in names}
    save_file(tensors, tmp_path / "prompts.safetensors")
    return str(tmp_path / "prompts.safetensors")


def run(path: Path, embeds: str, index: int = 0) -> Tensor:
    config = RestoreConfig(backbone=str(path), prompt_embeds=embeds)
    backbone = load_backbone(config, CPU, torch.float32)
    context = backbone.prepare("", "", NODES)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 2, 4, 6, generator=generator).repeat(2, 1, 1, 1, 1)
    t = torch.tensor([NODES[index].t, NODES[index].tau])
    return backbone.velocity(x, t, context.at(index, ["cond", "uncond"], 1))


def test_our_table_of_original_names_is_diffusers(write_transformer: Write, tmp_path: Path) -> None:
    """diffusers' own conversion of original checkpoints is the oracle of the table above."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    module = write_transformer(tmp_path)
    converted = convert_wan_transformer_to_diffusers(original_state(tmp_path))
    assert converted.keys() == module.state_dict().keys()


@pytest.mark.parametrize("wrapper", ["", "model.diffusion_model."])
def test_original_file(write_transformer: Write, tmp_path: Path, embeds: str, wrapper: str) -> None:
    """Heads of width 128, as nothing but the published sizes tells them."""
    folder = tmp_path / "t"
    write_transformer(folder, heads=1, head_dim=128)
    state = {wrapper + key: tensor for key, tensor in original_state(folder).items()}
    path = tmp_path / "wan.safetensors"
    save_file(state, path)
    assert locate(str(path)).family == "wan"
    assert torch.equal(run(path, embeds), run(folder, embeds))


def test_original_folder(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    source, folder = tmp_path / "t", tmp_path / "original"
    write_transformer(source)
    folder.mkdir()
    save_file(original_state(source), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "num_heads": 2}))
    assert torch.equal(run(folder, embeds), run(source, embeds))


def test_shards(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_transformer(whole)
    write_transformer(parts, max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 2
    assert torch.equal(run(whole, embeds), run(parts, embeds))


def experts(write_transformer: Write, folder: Path, boundary: float = 0.875) -> Path:
    """A model of two: `transformer` for times from the boundary on, `transformer_2` below."""
    write_transformer(folder / "transformer", seed=1)
    write_transformer(folder / "transformer_2", seed=2)
    index = {"_class_name": "WanPipeline", "boundary_ratio": boundary}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_expert_is_chosen_by_the_time(
    write_transformer: Write, tmp_path: Path, embeds: str
) -> None:
    """At the first node the branches belong to different experts, at the second to the low one."""
    folder = experts(write_transformer, tmp_path / "a14b")
    high, low = folder / "transformer", folder / "transformer_2"
    first, second = run(folder, embeds, 0), run(folder, embeds, 1)
    assert torch.equal(first[:1], run_alone(high, embeds, 0, 0))
    assert torch.equal(first[1:], run_alone(low, embeds, 0, 1))
    assert torch.equal(second, run(low, embeds, 1))
    assert facts_of(str(folder)).parameters == 2 * facts_of(str(low)).parameters


def run_alone(path: Path, embeds: str, index: int, row: int) -> Tensor:
    config = RestoreConfig(backbone=str(path), prompt_embeds=embeds)
    backbone = load_backbone(config, CPU, torch.float32)
    context = backbone.prepare("", "", NODES)
    x = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    branch, t = (("cond", NODES[index].t), ("uncond", NODES[index].tau))[row]
    return backbone.velocity(x, torch.tensor([t]), context.at(index, [branch], 1))


def test_expert_that_no_time_needs_is_not_read(
    write_transformer: Write, tmp_path: Path, embeds: str
) -> None:
    folder = experts(write_transformer, tmp_path / "a14b")
    config = RestoreConfig(backbone=str(folder), prompt_embeds=embeds)
    backbone = load_backbone(config, CPU, torch.float32)
    backbone.prepare("", "", NODES[1:])
    assert sorted(backbone._networks) == [0]
    backbone.prepare("", "", NODES)
    assert sorted(backbone._networks) == [0, 1]


def test_original_experts(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    source, folder = experts(write_transformer, tmp_path / "a14b"), tmp_path / "original"
    for name, part in (("high", "transformer"), ("low", "transformer_2")):
        place = folder / f"{name}_noise_model"
        place.mkdir(parents=True)
        save_file(original_state(source / part), place / "diffusion_pytorch_model.safetensors")
        (place / "config.json").write_text('{"_class_name": "WanModel", "num_heads": 2}')
    assert torch.equal(run(folder, embeds), run(source, embeds))


# -- what cannot be used -------------------------------------------------------------------------


def test_second_expert_is_absent(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    folder = experts(write_transformer, tmp_path / "a14b")
    shutil.rmtree(folder / "transformer_2")
    with pytest.raises(EngineError, match=r"no weights at .*transformer_2"):
        run(folder, embeds)


def test_image_to_video(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    write_transformer(tmp_path / "i2v", in_channels=36)
    with pytest.raises(EngineError, match="takes 36 channels and gives 16.*text-to-video"):
        run(tmp_path / "i2v", embeds)


def test_latents_of_no_codec(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    write_transformer(tmp_path / "t", in_channels=24, out_channels=24)
    with pytest.raises(EngineError, match="24 channels: no codec"):
        run(tmp_path / "t", embeds)


@pytest.mark.parametrize("drop", ["blocks.1.attn2.to_k.bias", "scale_shift_table"])
def test_missing_key(write_transformer: Write, tmp_path: Path, embeds: str, drop: str) -> None:
    write_transformer(tmp_path / "t")
    path = tmp_path / "t" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state[drop]
    save_file(state, path)
    with pytest.raises(EngineError, match=rf"does not fit the model: missing {re.escape(drop)}$"):
        run(tmp_path / "t", embeds)


def test_no_transformer_at_all(tmp_path: Path, embeds: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EngineError, match="is no Wan transformer"):
        run(tmp_path / "other.safetensors", embeds)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(EngineError, match="has no transformer/"):
        run(tmp_path / "empty", embeds)


def test_heads_that_do_not_divide(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    write_transformer(tmp_path / "t")
    config = tmp_path / "t" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 7}))
    with pytest.raises(EngineError, match="7 heads do not divide the width 48"):
        run(tmp_path / "t", embeds)


def test_embeddings_of_another_model(write_transformer: Write, tmp_path: Path, embeds: str) -> None:
    write_transformer(tmp_path / "t")
    names = ("prompt_embeds", "negative_prompt_embeds")
    save_file({name: torch.ones(1, 4, 33) for name in names}, embeds)
    with pytest.raises(EngineError, match=r"shape \(1, 4, 33\), not"):
        run(tmp_path / "t", embeds)
