"""Wan models of any size with random weights, as diffusers writes them, and diffusers' pipeline.

The weights keep the size of what passes through them, so that every layer counts in the result.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..engine.cache import cache_folder
from ..engine.diffusers_folder import diffusers_class
from ..kernels import gaussian_noise

PROMPTS = ("prompt_embeds", "negative_prompt_embeds")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class WanSize:
    """Sizes of the transformer, of its VAE, and of the clip (height and width in pixels)."""

    heads: int
    head_dim: int
    layers: int
    ffn_dim: int
    base_dim: int
    frames: int
    height: int
    width: int
    dtype: str = "fp32"
    text_dim: int = 4096
    text_tokens: int = 512


def model_folder(size: WanSize) -> Path:
    """The folder of a whole pipeline with prompts, written into the user's cache where it is not
    there yet."""
    key = sha256(json.dumps(asdict(size)).encode()).hexdigest()[:12]
    folder = cache_folder("bench") / f"wan-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            write(size, Path(place) / "model")
            os.rename(Path(place) / "model", folder)
    return folder


def write(size: WanSize, folder: Path) -> None:
    """Transformer, VAE, index and prompts."""
    transformer = diffusers_class("WanTransformer3DModel")(
        num_attention_heads=size.heads,
        attention_head_dim=size.head_dim,
        num_layers=size.layers,
        ffn_dim=size.ffn_dim,
        text_dim=size.text_dim,
    )
    randomise(transformer, 0)
    nn.Module.to(transformer, DTYPES[size.dtype])  # all of it, whatever diffusers would spare
    transformer.save_pretrained(folder / "transformer")
    vae = diffusers_class("AutoencoderKLWan")(base_dim=size.base_dim)
    randomise(vae, 1)
    vae.save_pretrained(folder / "vae")
    index = {"_class_name": "WanPipeline", "boundary_ratio": None, "transformer_2": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    generator = torch.Generator().manual_seed(2)
    shape = (1, size.text_tokens, size.text_dim)
    prompts = {name: torch.randn(shape, generator=generator) for name in PROMPTS}
    save_file(prompts, folder / "prompts.safetensors")


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        is_matrix = parameter.ndim > 1 and not name.endswith(("table", "gamma"))
        std = math.prod(parameter.shape[1:]) ** -0.5 if is_matrix else 0.1
        parameter.data.normal_(std=std, generator=generator)
        if name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm2.weight")):
            parameter.data.add_(1)


# What of diffusers goes through torch.compile, by the name of the choice.
COMPILED_PARTS = {
    "transformer": ("transformer",),
    "vae": ("vae.encoder", "vae.decoder"),
    "all": ("transformer", "vae.encoder", "vae.decoder"),
}


def compile_mode(device: torch.device) -> str:
    """The strongest mode of torch.compile that the pipeline can run with.

    CUDA graphs are left out: the pipeline uses the results of two passes after both were made, and
    the VAE feeds results back, which the static memory of a graph does not allow.
    """
    return "max-autotune-no-cudagraphs" if device.type == "cuda" else "default"


class Diffusers:
    """`WanVideoToVideoPipeline` with our times and our noise; as it is, or with torch.compile.

    `compiled` is one of `COMPILED_PARTS`.  Every shape has code of its own: the VAE's encoder and
    decoder see three, of the first, the second and any later slice of a clip.
    """

    def __init__(
        self, folder: Path, size: WanSize, device: torch.device, compiled: str | None = None
    ):
        dtype = DTYPES[size.dtype]
        transformer = diffusers_class("WanTransformer3DModel")
        vae = diffusers_class("AutoencoderKLWan")
        self.transformer = transformer.from_pretrained(folder / "transformer", torch_dtype=dtype)
        self.vae = vae.from_pretrained(folder / "vae", torch_dtype=dtype)
        self.transformer.to(device)
        self.vae.to(device)
        self.compiled = COMPILED_PARTS[compiled] if compiled else ()
        self.mode = compile_mode(device)
        for name in self.compiled:
            part: nn.Module = attrgetter(name)(self)
            part.compile(mode=self.mode, dynamic=False)
        self.embeds = {
            name: tensor.to(device, dtype)
            for name, tensor in load_file(folder / "prompts.safetensors").items()
        }
        self._pipeline = diffusers_class("WanVideoToVideoPipeline")(
            tokenizer=None,
            text_encoder=None,
            transformer=self.transformer,
            vae=self.vae,
            scheduler=diffusers_class("FlowMatchEulerDiscreteScheduler")(shift=1.0),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._device = device

    def restore(self, frames: Tensor, times: Sequence[float], scale: float) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1], with classifier-free guidance of that scale."""
        from diffusers.pipelines.wan import pipeline_wan_video2video as module

        def noise(shape: Sequence[int], **_: Any) -> Tensor:
            channels, count, rows, columns = shape[1:]
            return gaussian_noise(0, 0, count, channels, rows, columns, device=self._device)[None]

        with patch.object(module, "randn_tensor", noise):
            result = self._pipeline(
                video=frames[None],
                height=frames.shape[-2],
                width=frames.shape[-1],
                timesteps=[1000 * t for t in times],
                strength=1.0,
                guidance_scale=scale,
                output_type="pt",
                **self.embeds,
            )
        found: Tensor = result.frames[0]
        return found.cpu()

    def branches(self, x: Tensor, t: float) -> Callable[[], Tensor]:
        """Both velocities (2, C, T, H, W) at x (1, C, T, H, W), one after the other.

        The call is the pipeline's own, to the strides: what is compiled for it serves there.
        """
        given = {
            "hidden_states": x.to(self.transformer.dtype),
            "timestep": torch.tensor(1000 * t, device=x.device).expand(len(x)),
            "attention_kwargs": None,
            "return_dict": False,
        }

        def call() -> Tensor:
            texts = (self.embeds[name] for name in PROMPTS)
            return torch.cat(
                [self.transformer(**given, encoder_hidden_states=text)[0] for text in texts]
            )

        return call

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised latents (1, C, t, h, w) of frames (T, 3, H, W) in [0, 1]."""
        pixels = frames.to(self.vae.device, self.vae.dtype).transpose(0, 1)[None] * 2 - 1
        mean, std = self._statistics()
        z: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return (z - mean) / std

    def decode(self, z: Tensor) -> Tensor:
        """Frames (T, 3, H, W) of normalised latents."""
        mean, std = self._statistics()
        sample: Tensor = self.vae.decode((z * std + mean).to(self.vae.dtype)).sample
        return ((sample[0].transpose(0, 1) + 1) / 2).clamp(0, 1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, std = (
            torch.tensor(config[name], device=self.vae.device)[None, :, None, None, None]
            for name in ("latents_mean", "latents_std")
        )
        return mean, std
