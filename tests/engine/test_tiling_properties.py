"""The same promises for sizes as large as they come."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dtg_restore.engine.blend import ramps, reflect_index  # noqa: E402
from dtg_restore.engine.tiling import ChunkGrid, starts, tiles  # noqa: E402

# The same examples on every machine, and nothing written beside the tests.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@st.composite
def axes(draw: st.DrawFn, largest: int = 1000) -> tuple[int, int, int, int]:
    """(size, window, overlap, multiple) as the planner makes them."""
    multiple = draw(st.integers(1, 16))
    size, window = (multiple * draw(st.integers(1, largest)) for _ in range(2))
    return size, window, draw(st.integers(0, window - 1)), multiple


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    length = draw(st.integers(1, 300))
    return ChunkGrid(length, draw(st.integers(0, length // 2)))


@given(axes())
def test_windows_cover_an_axis(axis: tuple[int, int, int, int]) -> None:
    size, window, overlap, multiple = axis
    found = starts(*axis)
    assert found[0] == 0 and max(found) + window >= size
    assert all(start % multiple == 0 for start in found)
    if window < size:
        assert found[-1] + window == size
    for a, b in itertools.pairwise(found):
        assert a < b
        # Neighbours share the overlap, or all but one multiple where the window is hardly larger.
        assert a + window - b >= min(overlap, window - multiple)


@settings(max_examples=60)
@given(axes(largest=60), axes(largest=60))
def test_tiles_stay_inside(y: tuple[int, int, int, int], x: tuple[int, int, int, int]) -> None:
    multiple = y[3]
    height, width = y[0], x[0] // x[3] * multiple
    tile = (x[1] // x[3] * multiple, y[1])
    overlap = min(y[2], tile[0] - 1)
    found = tiles(height, width, tile, overlap, multiple)
    assert len({(t.height, t.width) for t in found}) == 1
    assert all(0 <= t.y <= t.y + t.height <= height for t in found)
    assert all(0 <= t.x <= t.x + t.width <= width for t in found)
    assert {(t.y, t.x) for t in found} == set(
        itertools.product({t.y for t in found}, {t.x for t in found})
    )


@given(axes(largest=40))
def test_weights_sum_to_one_everywhere(axis: tuple[int, int, int, int]) -> None:
    size, window, _, _ = axis
    window = min(window, size)
    found = starts(size, window, min(axis[2], window - 1), axis[3])
    total = [0.0] * size
    for start, weights in zip(found, ramps(found, window, size), strict=True):
        assert len(weights) == window and weights.min() > 0
        for i, weight in enumerate(weights.tolist(), start):
            total[i] += weight
    assert max(abs(t - 1) for t in total) < 1e-6


@given(grids(), st.integers(1, 10_000), st.data())
def test_a_worker_finds_the_chunks_of_its_range(
    grid: ChunkGrid, num_frames: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, num_frames - 1))
    stop = data.draw(st.integers(start + 1, num_frames))
    whole = grid.touching(0, num_frames, num_frames)
    want = [c for c in whole if c.start < stop and c.stop > start]
    assert grid.touching(start, stop, num_frames) == want
    assert {f for c in want for f in range(c.start, c.stop)} >= set(range(start, stop))


@given(st.integers(1, 50), st.integers(1, 300))
def test_reflection_is_a_walk_between_the_ends(size: int, length: int) -> None:
    index = reflect_index(size, length).tolist()
    assert index[: min(size, length)] == list(range(min(size, length)))
    assert set(index) <= set(range(size))
    step = 0 if size == 1 else 1
    assert all(abs(a - b) == step for a, b in itertools.pairwise(index))
