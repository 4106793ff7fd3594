"""The video VAEs of diffusers behind the codec's contract.

They do not stream: diffusers' modules take and return a whole clip, and so `decode` yields one
slice.  `vae_tile` bounds the memory in space.

A latent e of the encoder (the mode of its distribution) is normalised as z = (e - mean) * scale /
deviation; mean and deviation are per channel where a VAE has them, else 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusers_folder import as_engine_error, load_module, read_config
from .base import CodecFacts

Config = Mapping[str, Any]


@dataclass(frozen=True)
class VaeKind:
    """What differs between the classes.

    Parameters
    ----------
    strides : (frames, pixels) that make one latent cell, from config.json.
    tiling : what `enable_tiling` wants for an axis besides the side of a tile in pixels, for which
        it gets `_tiling`'s value.
    """

    strides: Callable[[Config], tuple[int, int]]
    tiling: tuple[str, ...] = ("tile_sample_stride",)


def _magvit(config: Config) -> tuple[int, int]:
    levels = len(config["block_out_channels"])
    return 2 ** (levels - 2), 2 ** (levels - 1)


def _given(config: Config) -> tuple[int, int]:
    return config["temporal_compression_ratio"], config["spatial_compression_ratio"]


def _ltx(config: Config) -> tuple[int, int]:
    halved = 2 ** sum(config["spatio_temporal_scaling"])
    return (
        config.get("temporal_compression_ratio") or config["patch_size_t"] * halved,
        config.get("spatial_compression_ratio") or config["patch_size"] * halved,
    )


def _mochi(config: Config) -> tuple[int, int]:
    return prod(config["temporal_expansions"]), prod(config["spatial_expansions"])


def _cogvideox(config: Config) -> tuple[int, int]:
    return int(config["temporal_compression_ratio"]), 2 ** (len(config["block_out_channels"]) - 1)


VAES = {
    "AutoencoderKLLTXVideo": VaeKind(_ltx),
    "AutoencoderKLHunyuanVideo": VaeKind(_given),
    "AutoencoderKLMochi": VaeKind(_mochi),
    "AutoencoderKLCogVideoX": VaeKind(_cogvideox, ("tile_overlap_factor",)),
    "AutoencoderKLHunyuanVideo15": VaeKind(_given, ("tile_latent_min",)),
    "AutoencoderKLLTX2Video": VaeKind(_ltx),
    "AutoencoderKLMagvit": VaeKind(_magvit),
}


def diffusers_vae_facts(folder: Path) -> CodecFacts:
    """From config.json alone; EngineError where it is of no class of `VAES`."""
    config = read_config(folder, *VAES)
    name = config["_class_name"]
    with as_engine_error(folder):
        frames, pixels = VAES[name].strides(config)
        return CodecFacts(name, config["latent_channels"], frames, pixels, causal=True)


def load_diffusers_vae(
    folder: Path, device: torch.device, dtype: torch.dtype, tile: tuple[int, int] | None
) -> DiffusersVae:
    """The codec in `folder`, working on tiles of (width, height) pixels, None or (0, 0) for none.

    EngineError where the folder cannot be used.
    """
    facts = diffusers_vae_facts(folder)
    vae = load_module(facts.name, folder, device, dtype)
    if tile and all(tile):
        vae.enable_tiling(**_tiling(tile, facts))
    return DiffusersVae(vae, facts, device)


def _tiling(tile: tuple[int, int], facts: CodecFacts) -> dict[str, float]:
    """Arguments of `enable_tiling`: tiles that share a quarter with their neighbours.

    Their sides are whole fours of cells: else some classes cut the parts of the result at other
    places than those of the latents, and return frames of another size.
    """
    settings: dict[str, float] = {}
    for axis, side in zip(("width", "height"), tile, strict=True):
        cells = max(side // facts.pixels // 4, 1) * 4
        values = {
            "tile_sample_stride": cells * 3 // 4 * facts.pixels,
            "tile_overlap_factor": 0.25,
            "tile_latent_min": cells,
        }
        settings[f"tile_sample_min_{axis}"] = cells * facts.pixels
        settings |= {f"{name}_{axis}": values[name] for name in VAES[facts.name].tiling}
    return settings


class DiffusersVae:
    def __init__(self, vae: Any, facts: CodecFacts, device: torch.device):
        self.facts, self.device, self._vae = facts, device, vae
        self._scale = vae.config.scaling_factor
        self._mean, self._deviation = (
            self._per_channel("latents_mean", 0.0),
            self._per_channel("latents_std", 1.0),
        )
        # Decoders of LTX-Video 0.9.1 and later also denoise: the latents are clean by then.
        self._decode_options = (
            {"temb": torch.zeros(1, device=device, dtype=vae.dtype)}
            if vae.config.get("timestep_conditioning")
            else {}
        )

    def _per_channel(self, name: str, default: float) -> Tensor:
        """(C, 1, 1, 1) fp32, from a buffer of the module or from its configuration."""
        values = getattr(self._vae, name, None)
        if values is None:
            values = self._vae.config.get(name)
        if values is None:
            values = [default] * self.facts.channels
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)[:, None, None, None]

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1] to z (1, C, t, h, w) fp32."""
        pixels = frames.to(self.device, self._vae.dtype).transpose(0, 1)[None] * 2 - 1
        e = self._vae.encode(pixels).latent_dist.mode().float()
        return (e - self._mean) * self._scale / self._deviation

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """z (1, C, t, h, w) to frames (T, 3, H, W) fp32, clamped to [0, 1], in one slice."""
        e = z.float() * self._deviation / self._scale + self._mean
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)  # some decoders of LTX-Video add noise: the same one every time
            pixels = self._vae.decode(e.to(self._vae.dtype), **self._decode_options).sample
        yield ((pixels[0].float().transpose(0, 1) + 1) / 2).clamp(0, 1)
