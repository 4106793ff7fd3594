"""Overlap-add: windows of tiles and of chunks.  At every place the weights sum to one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .types import Tile


def ramps(starts: list[int], window: int, size: int) -> list[Tensor]:
    """One window per start, (window,) each: linear ramps inside, flat at the ends of the axis,
    normalised so that they sum to one at each of the `size` places."""
    profiles = []
    rising = torch.arange(1, window + 1, dtype=torch.float64)
    for start in starts:
        left = rising if start > 0 else torch.full_like(rising, window)
        right = rising.flip(0) if start + window < size else torch.full_like(rising, window)
        profiles.append(torch.minimum(left, right))
    total = torch.zeros(size, dtype=torch.float64)
    for start, profile in zip(starts, profiles, strict=True):
        total[start : start + window] += profile
    return [
        (profile / total[start : start + window]).float()
        for start, profile in zip(starts, profiles, strict=True)
    ]


def tile_windows(tiles: list[Tile], height: int, width: int, device: torch.device) -> list[Tensor]:
    """The weight (h, w) of every tile: the product of a window in y and one in x."""
    rows, columns = (sorted({getattr(t, axis) for t in tiles}) for axis in ("y", "x"))
    vertical = dict(zip(rows, ramps(rows, tiles[0].height, height), strict=True))
    horizontal = dict(zip(columns, ramps(columns, tiles[0].width, width), strict=True))
    return [(vertical[t.y][:, None] * horizontal[t.x][None]).to(device) for t in tiles]


def cross_fade(before: Tensor, after: Tensor) -> Tensor:
    """Mix the shared frames of two chunks, (N, 3, H, W) each: the first favours `before`."""
    count = before.shape[0]
    weight = torch.arange(1, count + 1, device=before.device) / (count + 1)
    return torch.lerp(before, after, weight[:, None, None, None].to(before.dtype))


def reflect_index(size: int, length: int) -> Tensor:
    """Indices 0 .. size-1, continued to `length` by reflection that does not repeat the ends."""
    index = torch.arange(length)
    if size == 1:
        return torch.zeros_like(index)
    folded = index % (2 * (size - 1))
    return torch.where(folded < size, folded, 2 * (size - 1) - folded)


def reflect_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Continue x (..., H, W) to (..., height, width) by reflection at the bottom and the right."""
    rows, columns = x.shape[-2:]
    if height < 2 * rows and width < 2 * columns and x.ndim == 4:
        return F.pad(x, (0, width - columns, 0, height - rows), mode="reflect")
    x = x.index_select(-2, reflect_index(rows, height).to(x.device))
    return x.index_select(-1, reflect_index(columns, width).to(x.device))
