"""Shots, chunks and parts lie on one absolute timeline."""

from __future__ import annotations

import itertools

import pytest

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.tiling import ChunkGrid
from dtg_restore.engine.timeline import PART_FRAMES, Timeline

GRIDS = [ChunkGrid(length, overlap) for length in range(1, 8) for overlap in range(length // 2 + 1)]
SHOTS = [(0,), (0, 1), (0, 5, 6, 13), (0, 3, 17, 18, 19)]
NUM_FRAMES = 25


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_one_shot_has_the_chunks_of_the_grid(grid: ChunkGrid) -> None:
    timeline = Timeline(grid)
    for start in range(NUM_FRAMES):
        assert timeline.first_frame(start) == grid.first_touching(start) * grid.stride
        for stop in range(start + 1, NUM_FRAMES + 1):
            want = grid.touching(start, stop, NUM_FRAMES)
            assert timeline.touching(start, stop, NUM_FRAMES) == want


@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_chunks_cover_every_shot_by_itself(grid: ChunkGrid, shots: tuple[int, ...]) -> None:
    timeline = Timeline(grid, shots)
    whole = timeline.touching(0, NUM_FRAMES, NUM_FRAMES)
    for first, last in itertools.pairwise((*shots, NUM_FRAMES)):
        inside = [(c.index, c.start - first, c.stop - first) for c in whole if c.start in
                  range(first, last)]  # fmt: skip
        alone = grid.touching(0, last - first, last - first)
        assert inside == [(c.index, c.start, c.stop) for c in alone]


@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_range_has_the_chunks_that_touch_it(grid: ChunkGrid, shots: tuple[int, ...]) -> None:
    timeline = Timeline(grid, shots)
    whole = timeline.touching(0, NUM_FRAMES, NUM_FRAMES)
    for start in range(NUM_FRAMES):
        for stop in range(start + 1, NUM_FRAMES + 3):
            want = [c for c in whole if c.start < stop and c.stop > start]
            assert timeline.touching(start, stop, NUM_FRAMES) == want
            assert timeline.first_frame(start) == want[0].start


def test_nothing_is_refined_without_a_grid() -> None:
    timeline = Timeline(None, (0, 5))
    assert timeline.first_frame(7) == 7
    assert timeline.touching(0, 9, 9) == []


@pytest.mark.parametrize("grid", [None, *GRIDS], ids=str)
def test_parts_end_at_shots_and_at_chunks(grid: ChunkGrid | None) -> None:
    shots = (0, 3, 200)
    timeline, stride = Timeline(grid, shots), grid.stride if grid else 1
    ends = [0]
    while ends[-1] < 500:
        ends.append(timeline.part_end(ends[-1]))
    for frame in range(500):
        assert timeline.part_end(frame) == next(end for end in ends if end > frame)
    for before, end in itertools.pairwise(ends):
        assert end in shots or (end - timeline.shot_of(end)) % stride == 0
        assert end in shots or PART_FRAMES <= end - before < PART_FRAMES + stride
    assert set(shots) <= set(ends)


@pytest.mark.parametrize("shots", [(), (1,), (0, 0), (0, 5, 4), (0, -1)])
def test_shots_that_do_not_rise_from_0_are_refused(shots: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shots begin with frame 0"):
        Timeline(None, shots)
