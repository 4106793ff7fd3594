"""The Wan VAE as a codec: normalised latents, slices in time, tiles in space.

A latent e (the mode of the encoder's distribution) is normalised as z = (e - mean) / deviation,
with the statistics that config.json gives for every channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor

from ..blend import tile_windows
from ..errors import ConfigError
from ..shards import Rename, check_keys, load_into, open_shards
from ..tiling import tiles
from ..types import Tile
from .base import CodecFacts, Memory, Vae
from .convolution import MakeConvolution, fastest
from .wan_config import WanVaeConfig, read_wan_vae_config
from .wan_net import WanVae
from .wan_original import original_config, original_names
from .weights import open_weights

SHARED = 4  # neighbouring tiles share one part in so many of a tile


def wan_vae_facts(source: Path) -> CodecFacts:
    """Facts of the VAE at `source`, from config.json alone where that is a folder.

    EngineError where it is no Wan VAE.
    """
    if source.is_dir():
        return read_wan_vae_config(source).facts
    return original_config(open_weights(source)).facts


def load_wan_vae(
    source: Path,
    device: torch.device,
    dtype: torch.dtype,
    tile: tuple[int, int] | None = None,
    convolution: MakeConvolution = fastest,
) -> WanCodec:
    """The VAE at `source`.

    Parameters
    ----------
    source : a folder as diffusers writes it (config.json, the weights whole or in shards), or a
        .safetensors or .pth file in the layout of Wan2.1_VAE.pth or Wan2.2_VAE.pth.
    dtype : of the network; frames and latents are fp32 whatever it is.
    tile : (width, height) in pixels that the network works on at a time, rounded to latent cells;
        0 = the whole side, None = the whole frame.
    convolution : makes the convolutions of the network.

    Raises
    ------
    EngineError
        Where config.json is absent or of another class, or the weights are absent, cut short or do
        not fit it: missing, unexpected and misshapen keys are named.
    """
    if source.is_dir():
        config, shards = read_wan_vae_config(source), open_shards(source)
        rename: Rename = str
    else:
        shards = open_weights(source)
        config = original_config(shards)
        rename = original_names(config)
    with torch.device("meta"):
        vae = WanVae(config)
    check_keys(shards, vae, rename)
    load_into(vae, shards, rename, lambda _, tensor: tensor.to(device, dtype, copy=True))
    return WanCodec(vae.eval().prepare(convolution), config, device, dtype, tile)


class WanCodec:
    """See `engine.codecs.base.Codec`."""

    def __init__(
        self,
        vae: Vae,
        config: WanVaeConfig,
        device: torch.device,
        dtype: torch.dtype,
        tile: tuple[int, int] | None,
    ):
        self.facts, self.device, self.config, self.vae = config.facts, device, config, vae
        self._dtype, self._tile = dtype, tile or (0, 0)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (config.mean, config.std)
        )

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1], on any device, to z (1, C, t, h, w) fp32.

        Raises
        ------
        ConfigError
            Where T is not a multiple of `facts.frames` plus one, or H or W none of `facts.pixels`.
        """
        cell, group = self.facts.pixels, self.facts.frames
        count, _, height, width = frames.shape
        if count % group != 1 or height % cell or width % cell:
            raise ConfigError(
                f"{count} frames of {width}x{height} pixels: the Wan VAE takes {group} k + 1 "
                f"frames with sides that are multiples of {cell}"
            )
        size = (self.facts.latent_frames(count), height // cell, width // cell)
        z = torch.zeros(self.facts.channels, *size, device=self.device)
        for window in self._windows(*size[1:], scale=1):
            memory: Memory = {}
            for index in range(size[0]):
                part = frames[max(0, 1 + group * (index - 1)) : 1 + group * index]
                pixels = window.crop(part, cell).to(self.device, torch.float32) * 2 - 1
                e = self.vae.encode(self._enter(pixels), memory)
                window.add(z[:, index], e[0])
        return ((z - self._mean[:, None]) / self._std[:, None])[None]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """z (1, C, t, h, w) to slices (n, 3, H, W) fp32 in [0, 1]: 1 frame, then groups.

        They lie on `device`; those of tiles on the CPU, where they are gathered.
        """
        height, width = z.shape[3:]
        cell = self.facts.pixels
        windows = self._windows(height, width, scale=cell)
        slices = self._slices(z) if len(windows) == 1 else self._gathered(z, windows)
        for pixels in slices:
            yield ((pixels + 1) / 2).clamp_(0, 1)

    def _slices(self, z: Tensor) -> Iterator[Tensor]:
        """Pixels (n, 3, H, W) fp32 of one latent frame after the other."""
        memory: Memory = {}
        for index in range(z.shape[2]):
            e = z[:, :, index].to(self.device, torch.float32) * self._std + self._mean
            yield self.vae.decode(self._enter(e), memory).float()

    def _gathered(self, z: Tensor, windows: list[Window]) -> Iterator[Tensor]:
        """The same, one tile after the other through the whole time.

        What a tile remembers of the frames before weighs hundreds of frames of pixels: it is far
        cheaper to gather the pixels of all frames than to keep every tile's memory.
        """
        frames, cell = self.facts.frames, self.facts.pixels
        count = 1 + frames * (z.shape[2] - 1)
        pixels = torch.zeros(count, 3, z.shape[3] * cell, z.shape[4] * cell)
        bounds = [0, *range(1, count + 1, frames)]
        for window in windows:
            for (start, stop), part in zip(
                pairwise(bounds), self._slices(window.crop(z, 1)), strict=True
            ):
                window.add(pixels[start:stop], part)
        for start, stop in pairwise(bounds):
            yield pixels[start:stop]

    def _enter(self, x: Tensor) -> Tensor:
        return x.to(self._dtype).contiguous(memory_format=torch.channels_last)

    def _windows(self, height: int, width: int, scale: int) -> list[Window]:
        """Those of a latent frame of that size, where what comes out is `scale` times as large."""
        wide, high = (
            min(max(1, side // self.facts.pixels), whole) if side else whole
            for side, whole in zip(self._tile, (width, height), strict=True)
        )
        grid = tiles(height, width, (wide, high), min(wide, high) // SHARED, 1)
        results = [Tile(*(scale * value for value in tile)) for tile in grid]
        weights = tile_windows(results, scale * height, scale * width, self.device)
        return [Window(*parts) for parts in zip(grid, results, weights, strict=True)]


class Window(NamedTuple):
    """A tile in latent cells, its place in what comes out, and the weight of its values there.

    The weights of all tiles sum to one.
    """

    tile: Tile
    result: Tile
    weight: Tensor

    def crop(self, x: Tensor, scale: int) -> Tensor:
        """Its part of x (..., H, W), where a latent cell has `scale` x `scale` values."""
        return x[_place(Tile(*(scale * value for value in self.tile)))]

    def add(self, whole: Tensor, part: Tensor) -> None:
        whole[_place(self.result)] += (part.float() * self.weight).to(whole.device)


def _place(tile: Tile) -> tuple[EllipsisType, slice, slice]:
    y, x, height, width = tile
    return ..., slice(y, y + height), slice(x, x + width)
