"""Blending: weights that sum to one, fades that favour the nearer chunk, and reflection."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.blend import (
    OverlapAdd,
    TileGrid,
    cross_fade,
    fade,
    ramps,
    reflect_index,
    reflect_pad,
    tile_windows,
)
from dtg_restore.engine.tiling import starts, tiles
from dtg_restore.engine.types import Tile

CPU = torch.device("cpu")


@pytest.mark.parametrize("tile", [(16, 16), (24, 8), (0, 16), (48, 40), (0, 0)])
@pytest.mark.parametrize("overlap", [0, 3, 8])
def test_tile_weights_sum_to_one_everywhere(tile: tuple[int, int], overlap: int) -> None:
    height, width = 40, 64
    cut = tiles(height, width, tile, min(overlap, 7), 8)
    total = torch.zeros(height, width)
    for place, window in zip(cut, tile_windows(cut, height, width, CPU), strict=True):
        assert window.shape == (place.height, place.width) and window.min() > 0
        total[place.y : place.y + place.height, place.x : place.x + place.width] += window
    torch.testing.assert_close(total, torch.ones(height, width), rtol=0, atol=1e-6)


def test_a_single_tile_weighs_exactly_one() -> None:
    """So that a run without tiles is not changed by blending."""
    (window,) = tile_windows(tiles(40, 64, (0, 0), 0, 8), 40, 64, CPU)
    assert torch.equal(window, torch.ones(40, 64))


def test_ramps_rise_inside_and_are_flat_at_the_ends() -> None:
    windows = ramps(starts(40, 16, 8, 8), 16, 40)
    assert len(windows) == 4
    first, second = windows[:2]
    assert torch.equal(first[:8], torch.ones(8))  # alone there, up to the end of the axis
    assert all(a > b for a, b in itertools.pairwise(first[8:].tolist()))
    assert all(a < b for a, b in itertools.pairwise(second[:8].tolist()))
    torch.testing.assert_close(first[8:], second[:8].flip(0))  # the hand-over is symmetric


def test_two_windows_that_share_more_than_half_mirror_each_other() -> None:
    first, second = ramps([0, 8], 24, 32)
    assert torch.equal(first, second.flip(0))
    assert all(a <= b for a, b in itertools.pairwise(second.tolist()))  # up to the end of the axis


def test_ramps_do_not_jump() -> None:
    """No window steps by more than a ramp over the overlap would: no seam."""
    for window in ramps(starts(96, 32, 16, 8), 32, 96):
        assert window.diff().abs().max() < 1.5 / 16


def test_windows_of_rows_and_columns_are_not_mixed_up() -> None:
    cut = tiles(16, 64, (16, 16), 8, 8)
    for window in tile_windows(cut, 16, 64, CPU):
        assert torch.equal(window, window[:1].expand(16, -1))  # one row of tiles: flat in y
    assert not torch.equal(tile_windows(cut, 16, 64, CPU)[0], torch.ones(16, 16))


GRIDS = [((16, 16), 8), ((24, 8), 3), ((0, 16), 12), ((32, 24), 20), ((0, 0), 0)]


def random_tiles(tile: tuple[int, int], overlap: int) -> tuple[list[Tile], Tensor]:
    cut = tiles(40, 64, tile, overlap, 4)
    generator = torch.Generator().manual_seed(0)
    return cut, torch.randn(len(cut), 3, 2, cut[0].height, cut[0].width, generator=generator)


@pytest.mark.parametrize(("tile", "overlap"), GRIDS)
@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_overlap_add_is_the_weighted_sum_however_the_tiles_come(
    tile: tuple[int, int], overlap: int, batch: int
) -> None:
    """Bit for bit: what a chunk is must not depend on how many tiles go side by side."""
    cut, values = random_tiles(tile, overlap)
    grid = TileGrid(cut, (40, 64), CPU)
    parts, at_once = OverlapAdd(grid), OverlapAdd(grid)
    for group in values.split(batch):
        parts.add(group)
    at_once.add(values)
    want = torch.zeros(1, 3, 2, 40, 64)
    for place, window, value in zip(cut, tile_windows(cut, 40, 64, CPU), values, strict=True):
        rows, columns = (
            slice(place.y, place.y + place.height),
            slice(place.x, place.x + place.width),
        )
        want[..., rows, columns].addcmul_(value[None], window)
    assert torch.equal(parts.frame(), at_once.frame())
    torch.testing.assert_close(parts.frame(), want, rtol=1e-6, atol=1e-6)


def test_overlap_add_holds_about_two_rows_of_tiles() -> None:
    cut, values = random_tiles((16, 16), 8)
    columns = len({tile.x for tile in cut})
    assert len(cut) == 4 * columns
    blend, most = OverlapAdd(TileGrid(cut, (40, 64), CPU)), 0
    for value in values.split(1):
        blend.add(value)
        most = max(most, sum(map(len, blend._held)))
    assert columns <= most <= 2 * columns


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_cross_fade(count: int) -> None:
    before, after = torch.zeros(count, 3, 2, 2), torch.ones(count, 3, 2, 2)
    weights = cross_fade(before, after)[:, 0, 0, 0]
    places = [Fraction(i, count + 1) for i in range(1, count + 1)]
    want = [float(s**3 * (6 * s**2 - 15 * s + 10)) for s in places]
    torch.testing.assert_close(weights, torch.tensor(want), rtol=0, atol=1e-7)
    assert fade(count).tolist() == want  # rounded once: as C++ has it
    torch.testing.assert_close(cross_fade(after, before)[:, 0, 0, 0], 1 - weights)
    x = torch.rand(count, 3, 2, 2)
    assert torch.equal(cross_fade(x, x), x)  # agreement is kept, bit for bit


def test_cross_fade_of_nothing() -> None:
    nothing = torch.zeros(0, 3, 2, 2)
    assert cross_fade(nothing, nothing).shape == (0, 3, 2, 2)


def test_reflect_index_by_hand() -> None:
    assert reflect_index(4, 10).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert reflect_index(2, 5).tolist() == [0, 1, 0, 1, 0]
    assert reflect_index(1, 3).tolist() == [0, 0, 0]
    assert reflect_index(5, 5).tolist() == [0, 1, 2, 3, 4]


def slow_reflect_pad(x: Tensor, height: int, width: int) -> Tensor:
    rows, columns = reflect_index(x.shape[-2], height), reflect_index(x.shape[-1], width)
    return x[..., rows, :][..., columns]


@pytest.mark.parametrize(
    ("size", "padded"),
    [((16, 24), (16, 24)), ((17, 9), (24, 16)), ((9, 23), (16, 24)), ((3, 3), (8, 8)),
     ((1, 1), (8, 8)), ((8, 1), (8, 8)), ((2, 30), (8, 32)), ((5, 12), (8, 16))],
)  # fmt: skip
def test_reflect_pad(size: tuple[int, int], padded: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    got = reflect_pad(x, *padded)
    assert torch.equal(got, slow_reflect_pad(x, *padded))
    assert torch.equal(got[..., : size[0], : size[1]], x)
    assert torch.equal(reflect_pad(x[None], *padded)[0], got)  # any number of axes before
