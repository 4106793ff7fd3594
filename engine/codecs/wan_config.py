"""What a Wan VAE's config.json says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..diffusers_folder import as_engine_error, read_config
from ..errors import EngineError
from .base import CodecFacts

CLASS = "AutoencoderKLWan"

# Statistics of the latents of Wan 2.1, per channel, as published with its weights.
MEAN_21 = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
STD_21 = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class WanVaeConfig:
    """Sizes of the network and statistics of its latents; the defaults are Wan 2.1.

    Parameters
    ----------
    encoder_dim, decoder_dim : channels of the widest level.
    multipliers : channels of every level, from the widest in pixels on, over those.
    halves_time : for every level but the last, whether time is halved with width and height.
    residual : levels have averaging shortcuts (Wan 2.2).
    patch : pixels that are folded into channels before the first convolution, per side.
    """

    encoder_dim: int = 96
    decoder_dim: int = 96
    channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)
    residual: bool = False
    patch: int = 1
    mean: tuple[float, ...] = MEAN_21
    std: tuple[float, ...] = STD_21

    def __post_init__(self) -> None:
        levels = len(self.multipliers)
        if levels < 2 or len(self.halves_time) != levels - 1:
            raise ValueError(f"{len(self.halves_time)} resamplings between {levels} levels")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"{self.channels} latent channels, but {len(self.mean)} latents_mean and "
                f"{len(self.std)} latents_std"
            )

    @property
    def facts(self) -> CodecFacts:
        pixels = self.patch * 2 ** len(self.halves_time)
        return CodecFacts("wan", self.channels, 2 ** sum(self.halves_time), pixels, causal=True)


def read_wan_vae_config(folder: Path) -> WanVaeConfig:
    """From config.json; EngineError where it is absent, of another class or not of RGB frames."""
    given = read_config(folder, CLASS)
    for key, value in {"in_channels": 3, "out_channels": 3}.items():
        if given.get(key, value) != value * (given.get("patch_size") or 1) ** 2:
            raise EngineError(f"{folder / 'config.json'}: {key} is {given.get(key)}, not RGB")
    if given.get("attn_scales"):
        raise EngineError(f"{folder / 'config.json'}: attn_scales is not empty, unlike any Wan's")
    with as_engine_error(folder):
        base = WanVaeConfig()
        dim = given.get("base_dim", base.encoder_dim)
        return WanVaeConfig(
            encoder_dim=dim,
            decoder_dim=given.get("decoder_base_dim") or dim,
            channels=given.get("z_dim", base.channels),
            multipliers=tuple(given.get("dim_mult", base.multipliers)),
            blocks=given.get("num_res_blocks", base.blocks),
            halves_time=tuple(map(bool, given.get("temperal_downsample", base.halves_time))),
            residual=bool(given.get("is_residual", False)),
            patch=given.get("patch_size") or 1,
            mean=tuple(given.get("latents_mean", base.mean)),
            std=tuple(given.get("latents_std", base.std)),
        )
