"""One adapter protocol over the video transformers of diffusers.

A family is data: which class, where its configuration has the size, which text inputs it takes, how
its time and its output relate to the flow's.  Where data do not suffice (packed latents, another
noise schedule), the family overrides `load`, `inputs` or `flow` of `DiffusersBackbone`.

The guidance settings, tiles and chunks of these families are the models' native sizes and our
guesses: they are untested on real weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...codecs.base import Codec, CodecFacts
from ...codecs.choice import load_wan_codec
from ...codecs.diffusers_vae import diffusers_vae_facts, load_diffusers_vae
from ...codecs.wan import wan_vae_facts
from ...config import RestoreConfig
from ...devices import resolve_dtype
from ...diffusers_folder import as_engine_error, count_parameters, load_module, read_config
from ...errors import ConfigError, EngineError
from ...offload import ModelOffload
from ...schedule import Node
from ...text.embeds import Embeds, PromptSource, to_device
from ..base import BackboneFacts
from ..facts import RESTORATION_NEGATIVE, RESTORATION_PROMPT, TEXT_DEFAULTS
from .text import Encoding, encoder_of

Config = Mapping[str, Any]
WAN_VAE = "AutoencoderKLWan"
HOST = torch.device("cpu")
# Settings that reach into the network, which is diffusers' own here.
TAKEN = {"offload": ("none", "model"), "weights": ("auto",), "attention": ("auto",)}


class Text(NamedTuple):
    """A text input: the transformer's argument, and the key of its width in the configuration."""

    argument: str
    width: str | None = None


@dataclass(frozen=True)
class Adapter:
    """The facts of a family.

    Parameters
    ----------
    transformer : its class in diffusers.
    texts : by the name that the embedding has in files and caches.
    encoding : how the family's pipeline embeds a prompt.
    context_tokens : of the text, for the estimate of cost.
    chunk, overlap, tile, tile_overlap : see `BackboneFacts`.
    live_channels : see `BackboneFacts` and bench/results/families_memory.json; the default, for
        modules that cannot be traced, is the most of the others.
    time : the transformer is fed time[0] * t + time[1] at flow time t.
    sign : -1 where the output is x_0 - eps.
    layers, width, ffn : keys of the transformer's configuration; None for width is heads times the
        width of a head, None for ffn is `mlp_ratio`, or 4, times the width.
    """

    name: str
    transformer: str
    texts: Mapping[str, Text]
    encoding: Encoding
    context_tokens: int
    chunk: int
    tile: tuple[int, int]
    overlap: int = 9
    live_channels: float = 19.0
    tile_overlap: int = 128
    time: tuple[float, float] = (1000.0, 0.0)
    sign: float = 1.0
    layers: tuple[str, ...] = ("num_layers",)
    width: str | None = None
    ffn: str | None = None

    def size(self, config: Config) -> dict[str, Any]:
        """`patch`, `width`, `depth` and `ffn_width` of a model with that configuration."""
        patch = config["patch_size"]
        if isinstance(patch, int):
            patch = config.get("patch_size_t") or 1, patch, patch
        head = "num_attention_heads", "attention_head_dim"
        width = config[self.width] if self.width else prod(config[key] for key in head)
        return {
            "patch": tuple(patch),
            "width": width,
            "depth": sum(config[key] for key in self.layers),
            "ffn_width": config[self.ffn] if self.ffn else int(config.get("mlp_ratio", 4) * width),
        }


# Of one call: samples of equal shapes go together, as (their number, the text arguments).
Condition = tuple[tuple[int, dict[str, Tensor]], ...]


class DiffusersContext:
    """The text arguments of both branches; each batch is made once and serves every node."""

    def __init__(self, branches: dict[str, dict[str, Tensor]]):
        self._branches = branches
        self._batches: dict[tuple[tuple[str, ...], int], Condition] = {}

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Condition:
        key = tuple(branches), repeat
        if key not in self._batches:
            self._batches[key] = self._batch(*key)
        return self._batches[key]

    def _batch(self, branches: tuple[str, ...], repeat: int) -> Condition:
        rows = [self._branches[branch] for branch in branches]
        shapes = {tuple(tensor.shape for tensor in row.values()) for row in rows}
        groups = [rows] if len(shapes) == 1 else [[row] for row in rows]
        return tuple(
            (
                len(group) * repeat,
                {
                    name: torch.cat([row[name] for row in group]).repeat_interleave(repeat, 0)
                    for name in group[0]
                },
            )
            for group in groups
        )


class DiffusersBackbone:
    """A transformer of diffusers behind the backbone's contract."""

    def __init__(
        self,
        adapter: Adapter,
        facts: BackboneFacts,
        transformer: Any,
        prompts: PromptSource,
        device: torch.device,
        dtype: torch.dtype,
        on_device: Callable[[], AbstractContextManager[None]],
    ):
        self.facts, self.device, self.on_device = facts, device, on_device
        self.attend = None
        self.transformer, self._dtype = transformer, dtype
        self._adapter, self._prompts = adapter, prompts

    def load(self, root: Path) -> None:
        """Whatever else a family needs, from the folder of its pipeline."""

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> DiffusersContext:
        pair = self._prompts.get(prompt, negative_prompt)
        return DiffusersContext(
            {
                branch: self._arguments(to_device(embeds, self.device, self._dtype))
                for branch, embeds in zip(("cond", "uncond"), pair, strict=True)
            }
        )

    def _arguments(self, embeds: Embeds) -> dict[str, Tensor]:
        return {text.argument: embeds[name] for name, text in self._adapter.texts.items()}

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        counts = [count for count, _ in condition]
        parts = zip(x.split(counts), t.split(counts), condition, strict=True)
        with self.on_device():
            return torch.cat([self._velocity(x, t, texts) for x, t, (_, texts) in parts])

    def _velocity(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> Tensor:
        inputs = self.inputs(x, t, texts)
        inputs["hidden_states"] = inputs["hidden_states"].to(self._dtype)
        output = self.transformer(**inputs, return_dict=False)
        output = output[0] if isinstance(output, tuple) else output
        return self.flow(output.float(), x, t)

    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """The transformer's arguments at x (B, C, t, h, w) and t (B,), both fp32."""
        scale, offset = self._adapter.time
        return {"hidden_states": x, "timestep": scale * t + offset, **texts}

    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """v = eps - x_0 from the output in fp32."""
        return self._adapter.sign * output


class DiffusersFamily:
    """How a family's folders are read: the whole pipeline, or its transformer alone."""

    def __init__(self, adapter: Adapter, backbone: type[DiffusersBackbone] = DiffusersBackbone):
        self.adapter, self.backbone_class = adapter, backbone

    def facts(self, path: Path) -> BackboneFacts:
        adapter, folder = self.adapter, transformer_folder(path)
        config = read_config(folder, adapter.transformer)
        with as_engine_error(folder):
            size = adapter.size(config)
        return BackboneFacts(
            name=adapter.name,
            codec=codec_facts(vae_folder(path)),
            parameters=count_parameters(folder),
            **size,
            context_tokens=adapter.context_tokens,
            live_channels=adapter.live_channels,
            chunk=adapter.chunk,
            overlap=adapter.overlap,
            tile=adapter.tile,
            tile_overlap=adapter.tile_overlap,
            tile_batch=1,
            defaults=TEXT_DEFAULTS,
            prompt=RESTORATION_PROMPT,
            negative_prompt=RESTORATION_NEGATIVE,
        )

    def backbone(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> DiffusersBackbone:
        for name, taken in TAKEN.items():
            if getattr(config, name) not in taken:
                raise ConfigError(
                    f"{name} is {getattr(config, name)!r}: {self.adapter.name} supports "
                    f"{' and '.join(taken)} only"
                )
        facts, prompts = self.facts(path), self.prompts(path, config, device)
        waits = config.offload == "model"
        transformer = load_module(
            self.adapter.transformer, transformer_folder(path), HOST if waits else device, dtype
        )
        on_device = ModelOffload(transformer, device).on_device if waits else nullcontext
        backbone = self.backbone_class(
            self.adapter, facts, transformer, prompts, device, dtype, on_device
        )
        backbone.load(root_folder(path))
        return backbone

    def codec(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> Codec:
        own, given = vae_folder(path), Path(config.vae)
        if _is_wan(own):
            return load_wan_codec(path, wan_vae_facts(own), config, device, dtype)
        if config.vae == "tiny":
            raise ConfigError(f"vae is 'tiny': {self.adapter.name} has no tiny codec")
        folder = given / "vae" if (given / "vae").is_dir() else given
        folder = own if config.vae == "auto" else folder
        if diffusers_vae_facts(folder) != diffusers_vae_facts(own):
            raise EngineError(f"{folder} is not the kind of VAE that {path} was trained with")
        return load_diffusers_vae(folder, device, dtype, config.vae_tile)

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        adapter, folder = self.adapter, transformer_folder(path)
        values = read_config(folder, adapter.transformer)
        with as_engine_error(folder):
            shapes = {n: values[t.width] if t.width else 0 for n, t in adapter.texts.items()}
        encode, identity = encoder_of(
            root_folder(path), adapter.encoding, device, resolve_dtype(config.dtype, device)
        )
        return PromptSource(shapes, encode, identity, config.prompt_embeds)


def transformer_folder(path: Path) -> Path:
    return root_folder(path) / "transformer" if root_folder(path) == path else path


def vae_folder(path: Path) -> Path:
    return root_folder(path) / "vae"


def root_folder(path: Path) -> Path:
    """The folder of the whole pipeline, also where `path` is its transformer."""
    return path.parent if (path / "config.json").is_file() else path


def codec_facts(folder: Path) -> CodecFacts:
    return wan_vae_facts(folder) if _is_wan(folder) else diffusers_vae_facts(folder)


def _is_wan(folder: Path) -> bool:
    file = folder / "config.json"
    return file.is_file() and WAN_VAE in file.read_text()
