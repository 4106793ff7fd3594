"""How Wan weights lie on disk: both key layouts, the two experts, the sizes.

Sizes are read off the tensors themselves: the single files that circulate carry no configuration.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..shards import Rename, Shape, Shards, open_shards

HEAD_DIM = 128  # of every published Wan; folders of diffusers say it themselves
WRAPPERS = ("model.diffusion_model.", "diffusion_model.", "model.")

# The original names and diffusers' (the two normalisations change places).
ORIGINAL = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"^(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
    (r"^(blocks\.\d+)\.self_attn\.", r"\1.attn1."),
    (r"^(blocks\.\d+)\.cross_attn\.", r"\1.attn2."),
    (r"^(blocks\.\d+\.attn[12])\.([qkv])\.", r"\1.to_\2."),
    (r"^(blocks\.\d+\.attn[12])\.o\.", r"\1.to_out.0."),
    (r"^(blocks\.\d+)\.norm3\.", r"\1.norm2."),
    (r"^(blocks\.\d+)\.ffn\.0\.", r"\1.ffn.net.0.proj."),
    (r"^(blocks\.\d+)\.ffn\.2\.", r"\1.ffn.net.2."),
)


@dataclass(frozen=True)
class WanConfig:
    """Sizes of a Wan transformer; `patch` in latent frames, rows and columns."""

    dim: int
    heads: int
    depth: int
    ffn_dim: int
    channels: int
    text_dim: int
    frequency_dim: int
    patch: tuple[int, int, int]

    @property
    def patch_channels(self) -> int:
        return self.channels * prod(self.patch)


@dataclass(frozen=True)
class Expert:
    """One transformer of a model, used for times from `t_from` on up to the next one's."""

    shards: Shards
    config: WanConfig
    t_from: float
    rename: Rename

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.shards.shapes.values()))


def experts(path: Path) -> tuple[Expert, ...]:
    """The transformers at `path`, the one for low times first; only headers are read.

    `path` is a folder of diffusers (the whole model or its transformer/), of the original code, or
    one .safetensors file.  EngineError where they are no text-to-video Wan.
    """
    low = path / "low_noise_model"
    if low.is_dir():  # the original A14B
        return _expert(low, 0.0), _expert(path / "high_noise_model", _original_boundary(path))
    if (path / "transformer").is_dir():
        first = path / "transformer"
        index = _read_json(path / "model_index.json")
        boundary = index.get("boundary_ratio")
        if boundary is None:
            return (_expert(first, 0.0),)
        return _expert(path / "transformer_2", 0.0), _expert(first, float(boundary))
    if (path / "model_index.json").is_file():
        raise EngineError(f"{path} has no transformer/")
    return (_expert(path, 0.0),)


def _original_boundary(path: Path) -> float:
    """The original code keeps it outside the weights: 0.875 for text-to-video."""
    return float(_read_json(path / "configuration.json").get("boundary", 0.875))


def _expert(path: Path, t_from: float) -> Expert:
    if not path.exists():
        raise EngineError(f"no weights at {path}")
    config = _read_json(path / "config.json") if path.is_dir() else {}
    _check_class(path, config)
    shards = open_shards(path)
    rename = renaming(shards)
    shapes = {rename(key): shape for key, shape in shards.shapes.items()}
    return Expert(shards, read_sizes(shapes, config, path), t_from, rename)


def _check_class(path: Path, config: dict[str, Any]) -> None:
    name = config.get("_class_name", "WanTransformer3DModel")
    if name not in ("WanTransformer3DModel", "WanModel"):
        raise EngineError(f"{path} holds a {name}, not a Wan transformer")


def renaming(shards: Shards) -> Rename:
    """From the names on disk, of either layout, to ours."""
    keys = shards.shapes
    wrapper = next((w for w in WRAPPERS if f"{w}patch_embedding.weight" in keys), "")
    rules = [(re.compile(pattern), name) for pattern, name in ORIGINAL]
    is_original = f"{wrapper}text_embedding.0.weight" in keys

    def rename(key: str) -> str:
        key = key.removeprefix(wrapper)
        for pattern, name in rules if is_original else ():
            key = pattern.sub(name, key)
        return key

    return rename


def read_sizes(shapes: dict[str, Shape], config: dict[str, Any], source: Path) -> WanConfig:
    """The sizes from the shapes of tensors by our names; `config` tells the heads if it can."""
    try:
        dim, channels, *patch = shapes["patch_embedding.weight"]
        text_dim = shapes["condition_embedder.text_embedder.linear_1.weight"][1]
        frequency_dim = shapes["condition_embedder.time_embedder.linear_1.weight"][1]
        ffn_dim = shapes["blocks.0.ffn.net.0.proj.weight"][0]
        out = shapes["proj_out.weight"][0]
        t, h, w = patch
    except (KeyError, ValueError) as error:
        raise EngineError(
            f"{source} is no Wan transformer: it lacks or misshapes {error}"
        ) from None
    depth = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks."))
    heads = config.get("num_attention_heads", config.get("num_heads", dim // HEAD_DIM))
    if out != channels * t * h * w:
        raise EngineError(
            f"{source} takes {channels} channels and gives {out // (t * h * w)}: weights that are "
            "conditioned on an image or a video are not supported, take the text-to-video ones"
        )
    if not isinstance(heads, int) or heads < 1 or dim % (2 * heads):
        raise EngineError(f"{source}: {heads} heads do not divide the width {dim}")
    return WanConfig(dim, heads, depth, ffn_dim, channels, text_dim, frequency_dim, (t, h, w))


def _read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EngineError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise EngineError(f"{path} holds no settings")
    return found
