"""Running a single-frame network: frame by frame, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..devices import named_out_of_memory
from ..types import Tile
from .base import SRFacts

# Side of a tile in input pixels.  On a CPU the feature maps of a larger one leave the cache, on
# a GPU the maps of a smaller one do not fill it.
TILE = {"cpu": 256, "cuda": 1024}
LEAST_TILE = 16


def split(size: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut 0 .. size into the fewest nearly equal parts (start, stop) of at most `limit`."""
    parts = -(-size // limit)
    for part in range(parts):
        yield part * size // parts, (part + 1) * size // parts


def tiles(height: int, width: int, limit: int) -> Iterator[Tile]:
    """Tiles that cover the frame once, without overlap."""
    for top, bottom in split(height, limit):
        for left, right in split(width, limit):
            yield Tile(top, left, bottom - top, right - left)


class FrameSR:
    """A `SuperResolver` around a module (1, 3, H, W) -> (1, 3, sH, sW) that sees one frame.

    The tiles see `facts.halo` pixels of their surroundings and the frame's true border, so a
    tiled frame equals an untiled one to rounding, and memory is bounded by the tile.
    """

    def __init__(
        self, module: nn.Module, facts: SRFacts, device: torch.device, tile: int | None = None
    ):
        self.facts = facts
        self.device = device
        self.tile = tile or TILE.get(device.type, TILE["cpu"])
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.module.requires_grad_(False)

    @torch.no_grad()
    def upscale(self, frames: Tensor) -> Tensor:
        """See `SuperResolver.upscale`."""
        if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape[2:]:
            raise ValueError(f"frames must be (T, 3, H, W), not {tuple(frames.shape)}")
        if not frames.is_floating_point():
            raise ValueError(f"frames must be floating point in [0, 1], not {frames.dtype}")
        num_frames, _, height, width = frames.shape
        s = self.facts.scale
        result = frames.new_empty((num_frames, 3, s * height, s * width), dtype=torch.float32)
        for frame, target in zip(frames, result, strict=True):
            for tile in tiles(height, width, self.tile):
                with named_out_of_memory(stage="upscale"):
                    self._upscale_tile(frame, target, tile)
        return result

    def smaller(self, height: int, width: int) -> FrameSR | None:
        """The same model on tiles of half the side, for frames of that size; None where they would
        be tiny.  It gives the same frames to rounding."""
        side = min(self.tile, max(height, width)) // 2
        return FrameSR(self.module, self.facts, self.device, side) if side >= LEAST_TILE else None

    def _upscale_tile(self, frame: Tensor, target: Tensor, tile: Tile) -> None:
        s, halo = self.facts.scale, self.facts.halo
        top, left = max(tile.y - halo, 0), max(tile.x - halo, 0)
        bottom, right = tile.y + tile.height + halo, tile.x + tile.width + halo
        x = frame[None, :, top:bottom, left:right].to(self.device, torch.float32)
        y = self.module(x.contiguous(memory_format=torch.channels_last))[0]
        rows = slice(s * tile.y, s * (tile.y + tile.height))
        columns = slice(s * tile.x, s * (tile.x + tile.width))
        inner = y[
            :,
            s * (tile.y - top) : s * (tile.y - top + tile.height),
            s * (tile.x - left) : s * (tile.x - left + tile.width),
        ]
        target[:, rows, columns] = inner.to(target.device)
