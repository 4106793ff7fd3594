"""Overlap-add: windows of tiles and of chunks.  At every place the weights sum to one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import tile_blend
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


def tile_ramps(
    tiles: list[Tile], height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The windows of every tile in y (N, h) and in x (N, w); its weights are their product."""
    rows, columns = (sorted({getattr(t, axis) for t in tiles}) for axis in ("y", "x"))
    vertical = dict(zip(rows, ramps(rows, tiles[0].height, height), strict=True))
    horizontal = dict(zip(columns, ramps(columns, tiles[0].width, width), strict=True))
    return (
        torch.stack([vertical[t.y] for t in tiles]).to(device),
        torch.stack([horizontal[t.x] for t in tiles]).to(device),
    )


def tile_windows(tiles: list[Tile], height: int, width: int, device: torch.device) -> list[Tensor]:
    """The weight (h, w) of every tile."""
    vertical, horizontal = tile_ramps(tiles, height, width, device)
    return list(vertical[:, :, None] * horizontal[:, None, :])


class TileGrid:
    """The tiles of a frame, row by row, with all that gathering and blending them needs.

    `origins` are (N, 2) int32 on the device.
    """

    def __init__(self, tiles: list[Tile], size: tuple[int, int], device: torch.device):
        self.size, self.tile = size, (tiles[0].height, tiles[0].width)
        self.tops = [tile.y for tile in tiles]
        self.origins = torch.tensor(
            [(tile.y, tile.x) for tile in tiles], dtype=torch.int32, device=device
        )
        self._windows = tile_ramps(tiles, *size, device)

    def __len__(self) -> int:
        return len(self.tops)

    def blend(self, values: Tensor, first: int, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` of the sum (1, C, T, bottom - top, W) of the tiles from number
        `first` on, `values` (n, C, T, h, w)."""
        part = slice(first, first + len(values))
        origins = self.origins[part].clone()
        origins[:, 0] -= top
        window_y, window_x = self._windows
        size = (bottom - top, self.size[1])
        return tile_blend(values.contiguous(), origins, window_y[part], window_x[part], size)


class OverlapAdd:
    """Blends the tiles of a frame that arrive in order, some at a time, as if they came at once.

    Rows that no later tile reaches are blended at once, and only tiles that reach beyond them are
    kept: what is held is the frame and about two rows of tiles.  Where all tiles come together,
    their blend is the frame.
    """

    def __init__(self, grid: TileGrid):
        self._grid = grid
        self._held: list[Tensor] = []
        self._first = self._seen = self._done = 0  # tile held, tiles that came, rows blended
        self._frame: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """The next tiles, (n, C, T, h, w)."""
        grid = self._grid
        self._held.append(values)
        self._seen += len(values)
        done, self._done = self._done, min(grid.tops[self._seen :], default=grid.size[0])
        if self._done == done:
            return
        held = self._held[0] if len(self._held) == 1 else torch.cat(self._held)
        self._store(grid.blend(held, self._first, done, self._done), done)
        reaches = [top + grid.tile[0] > self._done for top in grid.tops[self._first : self._seen]]
        dropped = reaches.index(True) if True in reaches else len(reaches)
        self._first += dropped
        self._held = [held[dropped:]]

    def _store(self, band: Tensor, top: int) -> None:
        height = self._grid.size[0]
        if band.shape[3] == height:
            self._frame = band
            return
        if self._frame is None:
            self._frame = band.new_empty(*band.shape[:3], height, band.shape[4])
        self._frame[..., top : top + band.shape[3], :] = band

    def frame(self) -> Tensor:
        """(1, C, T, H, W) fp32, in new memory, once all tiles have come."""
        assert self._frame is not None and self._done == self._grid.size[0]
        return self._frame


def fade(count: int) -> Tensor:
    """Weights (count,) float64 with which a chunk takes over from the one before, frame by frame.

    w(s) = s^3 (6 s^2 - 15 s + 10) at s = i / (count + 1), i = 1 .. count: slope and curvature are 0
    at both ends.  The frames at the border of a chunk, refined with neighbours on one side alone,
    hardly count: weights fitted to ground truth have this shape (docs/QUALITY.md).
    """
    # Products of whole numbers, exact up to a thousand frames: the one rounding is that of the
    # division, so that C++ has the same bits.
    i, n = torch.arange(1.0, count + 1, dtype=torch.float64), float(count + 1)
    return i * i * i * (6 * i * i - 15 * n * i + 10 * n * n) / (n * n * n * n * n)


def cross_fade(before: Tensor, after: Tensor) -> Tensor:
    """Mix the shared frames of two chunks, (N, 3, H, W) each: the first favours `before`."""
    weight = fade(len(before)).to(before)
    return torch.lerp(before, after, weight[:, None, None, None])


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
