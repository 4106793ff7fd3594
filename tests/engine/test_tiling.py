"""The grids of chunks and tiles, over every small case there is."""

from __future__ import annotations

import itertools

import pytest

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.tiling import ChunkGrid, round_up, starts, tiles

GRIDS = [(length, overlap) for length in range(1, 18) for overlap in range(length // 2 + 1)]
NUM_FRAMES = range(1, 61)


@pytest.mark.parametrize(("length", "overlap"), GRIDS)
def test_every_frame_is_in_one_chunk_or_in_two_neighbours(length: int, overlap: int) -> None:
    grid = ChunkGrid(length, overlap)
    for num_frames in NUM_FRAMES:
        chunks = grid.touching(0, num_frames, num_frames)
        covering = [0] * num_frames
        for chunk in chunks:
            assert 0 <= chunk.start < chunk.stop <= num_frames
            assert chunk.stop - chunk.start <= length
            for frame in range(chunk.start, chunk.stop):
                covering[frame] += 1
        assert set(covering) <= {1, 2}
        for before, after in itertools.pairwise(chunks):
            assert (after.index, after.start) == (before.index + 1, before.start + grid.stride)
            assert before.stop - after.start == overlap
            assert after.stop > before.stop  # every chunk adds a frame
            assert before.stop == before.start + length  # only the last is cut short


@pytest.mark.parametrize(("length", "overlap"), GRIDS)
def test_first_touching_is_the_first_that_contains_the_frame(length: int, overlap: int) -> None:
    grid = ChunkGrid(length, overlap)
    for frame in range(60):
        containing = [k for k in range(61) if k * grid.stride <= frame < k * grid.stride + length]
        assert grid.first_touching(frame) == containing[0]


@pytest.mark.parametrize(("length", "overlap"), GRIDS)
def test_exists_and_touching_agree_with_each_other(length: int, overlap: int) -> None:
    grid = ChunkGrid(length, overlap)
    for num_frames in NUM_FRAMES:
        whole = grid.touching(0, num_frames, num_frames)
        assert [c.index for c in whole] == [k for k in range(62) if grid.exists(k, num_frames)]
        for start, stop in ((0, 1), (num_frames // 2, num_frames), (num_frames - 1, num_frames)):
            want = [c for c in whole if c.start < stop and c.stop > start]
            assert grid.touching(start, stop, num_frames) == want


@pytest.mark.parametrize(("length", "overlap"), [(4, 3), (1, 1), (16, 9), (16, -1)])
def test_overlap_of_more_than_half_is_refused(length: int, overlap: int) -> None:
    """A frame would lie in three chunks."""
    with pytest.raises(ConfigError, match=f"overlap is {overlap}: .*{length}"):
        ChunkGrid(length, overlap)


def check_starts(size: int, window: int, overlap: int, multiple: int) -> None:
    found = starts(size, window, overlap, multiple)
    assert found[0] == 0 and all(s % multiple == 0 for s in found)
    if window >= size:
        assert found == [0]
        return
    assert found[-1] + window == size  # the last ends with the axis
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert min(steps) >= multiple
    assert max(steps) <= max(multiple, window - overlap)
    assert max(steps) - min(steps) <= multiple  # evenly spread
    most = max(multiple, (window - overlap) // multiple * multiple)
    assert len(found) == 1 + -(-(size - window) // most)  # and no more of them than needed


def test_starts_of_every_small_case() -> None:
    for multiple in (1, 2, 8):
        for size, window in itertools.product(range(1, 21), range(1, 9)):
            for overlap in range(window * multiple):
                check_starts(size * multiple, window * multiple, overlap, multiple)


def test_starts_by_hand() -> None:
    assert starts(64, 64, 16, 8) == [0]
    assert starts(104, 96, 16, 8) == [0, 8]
    assert starts(176, 96, 16, 8) == [0, 80]
    assert starts(184, 96, 16, 8) == [0, 48, 88]  # half a unit goes to the even side


@pytest.mark.parametrize("tile", [(16, 24), (24, 16), (0, 16), (16, 0), (0, 0), (800, 8)])
def test_tiles_cover_the_frame(tile: tuple[int, int]) -> None:
    height, width = 56, 40
    found = tiles(height, width, tile, 7, 8)
    sizes = {(t.width, t.height) for t in found}
    assert sizes == {(min(tile[0] or width, width), min(tile[1] or height, height))}
    covered = {
        (y, x) for t in found for y in range(t.y, t.y + t.height) for x in range(t.x, t.x + t.width)
    }
    assert covered == set(itertools.product(range(height), range(width)))
    assert found == sorted(found) and len(set(found)) == len(found)  # row by row, once each


def test_round_up() -> None:
    assert [round_up(n, 8) for n in (0, 1, 7, 8, 9)] == [0, 8, 8, 8, 16]
