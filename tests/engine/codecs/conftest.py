"""Small VAEs as their own projects write them, and numbers that need no generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

CHANNELS_22 = 48
CONFIGS: dict[str, dict[str, Any]] = {
    "2.1": {"base_dim": 8, "decoder_base_dim": 16, "dim_mult": [1, 2, 2, 3], "num_res_blocks": 1},
    "2.1 deep": {"base_dim": 8},  # the published multipliers and blocks
    "2.2": {
        **{"base_dim": 16, "decoder_base_dim": 24, "z_dim": CHANNELS_22, "is_residual": True},
        **{"patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16},
        "latents_mean": [0.02 * i - 0.5 for i in range(CHANNELS_22)],
        "latents_std": [0.5 + 0.03 * i for i in range(CHANNELS_22)],
    },
}


class Pair(NamedTuple):
    """diffusers' module and the folder that it was written to."""

    vae: Any
    folder: Path

    def encode(self, frames: Tensor) -> Tensor:
        """What the codec's `encode` is to give."""
        e = self.vae.encode(frames.transpose(0, 1)[None] * 2 - 1).latent_dist.mode()
        return (e - self._of("latents_mean")) / self._of("latents_std")

    def decode(self, z: Tensor) -> Tensor:
        """What the slices of the codec's `decode` are to be, (T, 3, H, W)."""
        e = z * self._of("latents_std") + self._of("latents_mean")
        return (self.vae.decode(e).sample[0].transpose(0, 1) + 1) / 2

    def _of(self, name: str) -> Tensor:
        return torch.tensor(self.vae.config[name])[None, :, None, None, None]


@pytest.fixture(scope="session")
def wan_vae(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A small random VAE by the name of its configuration, written by diffusers."""
    diffusers = pytest.importorskip("diffusers")
    made: dict[str, Pair] = {}

    def build(name: str) -> Pair:
        if name not in made:
            torch.manual_seed(0)
            vae = diffusers.AutoencoderKLWan(**CONFIGS[name]).eval().requires_grad_(False)
            for key, parameter in vae.named_parameters():
                if key.endswith("gamma"):  # ones, untrained: a wrong use would not show
                    parameter.uniform_(0.7, 1.3)
            folder = tmp_path_factory.mktemp("wan") / "vae"
            vae.save_pretrained(folder)
            made[name] = Pair(vae, folder)
        return made[name]

    return build


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Scattered values in [-1, 1) that are the same everywhere, whatever the random generator."""

    def make(*shape: int, phase: int = 0) -> Tensor:
        count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        values = torch.sin(count * 12.9898 + phase * 78.233) * 43758.5453
        return (2 * (values - values.floor()) - 1).float().view(shape)

    return make


@pytest.fixture
def tiny_state(noise: Callable[..., Tensor]) -> Callable[[int, int], dict[str, Tensor]]:
    """Weights in the layout of the public taew2_1 (16 channels, patch 1) or taew2_2 (48, 2)."""

    def conv(inputs: int, outputs: int, side: int = 3) -> tuple[int, ...]:
        return outputs, inputs, side, side

    def chain(prefix: str, layers: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}.{key}": shape for key, shape in layers.items()}

    def memory_block(at: int, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for place, inputs in ((0, 2 * width), (2, width), (4, width)):
            shapes[f"{at}.conv.{place}.weight"] = conv(inputs, width)
            shapes[f"{at}.conv.{place}.bias"] = (width,)
        return shapes

    def make(channels: int, patch: int) -> dict[str, Tensor]:
        encoder = {"0.weight": conv(3 * patch**2, 64), "0.bias": (64,)}
        for at, frames in ((2, 2), (7, 2), (12, 1)):
            encoder[f"{at}.conv.weight"] = conv(64 * frames, 64, side=1)
            encoder[f"{at + 1}.weight"] = conv(64, 64)
            for block in range(at + 2, at + 5):
                encoder |= memory_block(block, 64)
        encoder |= {"17.weight": conv(64, channels), "17.bias": (channels,)}
        decoder = {"1.weight": conv(channels, 256), "1.bias": (256,)}
        for at, width, narrower in ((3, 256, 128), (9, 128, 64), (15, 64, 64)):
            for block in range(at, at + 3):
                decoder |= memory_block(block, width)
            decoder[f"{at + 4}.conv.weight"] = conv(width, 2 * width, side=1)
            decoder[f"{at + 5}.weight"] = conv(width, narrower)
        decoder |= {"22.weight": conv(64, 3 * patch**2), "22.bias": (3 * patch**2,)}
        shapes = chain("encoder", encoder) | chain("decoder", decoder)
        state = {
            key: noise(*shape, phase=i) * (4 / (torch.Size(shape[1:]).numel())) ** 0.5
            for i, (key, shape) in enumerate(shapes.items())
        }
        state["decoder.22.weight"] *= 0.1  # so that little is clamped
        state["decoder.22.bias"] = state["decoder.22.bias"] * 0.1 + 0.5
        return state

    return make
