"""Files of Wan VAEs: shards, the original layout, and what is wrong with others."""

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

from dtg_restore.engine.codecs.wan import WanCodec, load_wan_vae, wan_vae_facts
from dtg_restore.engine.codecs.wan_config import MEAN_21, STD_21
from dtg_restore.engine.errors import EngineError

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
State = dict[str, Tensor]
Vae = Callable[[str], Any]  # gives a Pair of conftest.py


def load(source: Path) -> WanCodec:
    return load_wan_vae(source, CPU, torch.float32)


def problem(source: Path) -> str:
    with pytest.raises(EngineError) as caught:
        load(source)
    assert "\n" not in str(caught.value) and str(source) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(wan_vae: Vae, tmp_path: Path) -> Path:
    """A copy of a good one, to be spoilt."""
    return Path(shutil.copytree(wan_vae("2.1").folder, tmp_path / "vae"))


def decoded(codec: WanCodec) -> Tensor:
    torch.manual_seed(0)
    return torch.cat(list(codec.decode(torch.randn(1, codec.facts.channels, 2, 2, 2) / 2)))


def test_shards(wan_vae: Vae, tmp_path: Path) -> None:
    pair = wan_vae("2.1")
    pair.vae.save_pretrained(tmp_path, max_shard_size="200KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(decoded(load(tmp_path)), decoded(load(pair.folder)))
    shards[1].unlink()
    assert shards[1].name in problem(tmp_path)


def to_original(key: str, nested: bool) -> str:
    """diffusers' name of a tensor to the one it was first published under."""
    for pattern, name in (
        (r"^quant_conv", "conv1"),
        (r"^post_quant_conv", "conv2"),
        (r"\.conv1\.", ".residual.2."),
        (r"\.conv2\.", ".residual.6."),
        (r"\.norm1\.", ".residual.0."),
        (r"\.norm2\.", ".residual.3."),
        (r"conv_shortcut", "shortcut"),
        (r"conv_in", "conv1"),
        (r"norm_out", "head.0"),
        (r"conv_out", "head.2"),
        (r"mid_block\.resnets\.0", "middle.0"),
        (r"mid_block\.attentions\.0", "middle.1"),
        (r"mid_block\.resnets\.1", "middle.2"),
    ):
        key = re.sub(pattern, name, key)
    if not nested:
        key = key.replace("down_blocks", "downsamples")
        key = re.sub(r"upsamplers\.0", "resnets.3", key)
        return re.sub(
            r"up_blocks\.(\d)\.resnets\.(\d)",
            lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}",
            key,
        )
    key = key.replace("downsampler", "resnets.2").replace("upsampler", "resnets.3")
    return re.sub(r"(down|up)_blocks\.(\d)\.resnets", r"\1samples.\2.\1samples", key)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["2.1 deep", "2.2"])
def test_the_original_layout(name: str, suffix: str, wan_vae: Vae, tmp_path: Path) -> None:
    """The same network: only the statistics may differ, and they do for the made-up ones of 2.2."""
    folder = wan_vae(name).folder
    state = {to_original(k, name == "2.2"): t for k, t in load_file(folder / WEIGHTS).items()}
    path = tmp_path / f"Wan_VAE{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    assert wan_vae_facts(path) == wan_vae_facts(folder)
    ours, theirs = load(path), load(folder)
    theirs._mean, theirs._std = ours._mean, ours._std
    assert torch.equal(decoded(ours), decoded(theirs))
    clip = torch.rand(5, 3, 32, 32)
    assert torch.equal(ours.encode(clip), theirs.encode(clip))


def test_published_statistics_are_those_that_diffusers_has(wan_vae: Vae) -> None:
    config = wan_vae("2.1").vae.config
    assert (tuple(config.latents_mean), tuple(config.latents_std)) == (MEAN_21, STD_21)


def _drop(state: State) -> None:
    del state["decoder.up_blocks.0.resnets.0.conv1.bias"]


def _add(state: State) -> None:
    state["decoder.extra"] = torch.zeros(1)


def _bend(state: State) -> None:
    state["encoder.conv_in.weight"] = torch.zeros(8, 3, 3, 3)


@pytest.mark.parametrize(
    "change, told",
    [
        (_drop, "missing decoder.up_blocks.0.resnets.0.conv1.bias"),
        (_add, "unexpected decoder.extra"),
        (_bend, "wrong shape encoder.conv_in.weight (8, 3, 3, 3) instead of (8, 3, 3, 3, 3)"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    change: Callable[[State], None], told: str, folder: Path
) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    assert told in problem(folder)


def test_weights_that_are_not_there_or_cut_short(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    assert "cut short" in problem(folder)
    (folder / WEIGHTS).unlink()
    assert "no .safetensors weights" in problem(folder)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"_class_name": "AutoencoderKL"}, "'AutoencoderKL', not AutoencoderKLWan"),
        ({"in_channels": 4}, "in_channels is 4, not RGB"),
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"latents_mean": [0.0]}, "16 latent channels, but 1 latents_mean"),
        ({"temperal_downsample": [True]}, "1 resamplings between 4 levels"),
        ({"base_dim": 16}, "wrong shape"),
    ],
)
def test_a_foreign_configuration(changes: dict, told: str, folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert told in problem(folder)


def test_a_configuration_that_is_absent_or_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "cannot be read" in problem(folder)
    (folder / "config.json").unlink()
    assert "config.json" in problem(folder)


def test_a_single_file_of_another_layout(wan_vae: Vae, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    assert "no weights at" in problem(path)
    shutil.copy(wan_vae("2.1").folder / WEIGHTS, path)
    assert "it lacks encoder.conv1.weight, decoder.head.0.gamma, conv2.weight" in problem(path)
