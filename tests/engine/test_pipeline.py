"""Cutting, joining and trimming agree with the grid, for every clip length, lazily."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.pipeline import cut, join, known, restore_frames, trim
from dtg_restore.engine.report import Clock
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.tiling import ChunkGrid
from dtg_restore.engine.timeline import Timeline
from dtg_restore.engine.types import Chunk

GRIDS = [
    ChunkGrid(length, overlap) for length in range(1, 13) for overlap in range(length // 2 + 1)
]
NAMES = [f"{g.length}-{g.overlap}" for g in GRIDS]


def numbered(start: int, stop: int) -> list[Tensor]:
    """Frames that carry their number in every pixel."""
    return list(torch.arange(float(start), max(start, stop)).view(-1, 1, 1, 1).expand(-1, 3, 1, 1))


def identity(frames: Tensor, chunk: Chunk) -> Tensor:
    return frames.clone()


def marked(frames: Tensor, chunk: Chunk) -> Tensor:
    """A refinement that tells which chunk a frame came from."""
    return frames * 1000 + chunk.index


def numbers(frames: list[Tensor]) -> list[float]:
    return torch.cat(frames)[::3].flatten().tolist() if frames else []


def restore(
    grid: ChunkGrid,
    num_frames: int,
    start: int,
    stop: int | None,
    refine: Callable,
    shots: tuple[int, ...] = (0,),
) -> list[Tensor]:
    timeline = Timeline(grid, shots)
    source = numbered(timeline.first_frame(start), num_frames)
    return list(restore_frames(source, start, stop, refine, timeline, None, Clock()))


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_cut_makes_the_chunks_of_the_grid(grid: ChunkGrid) -> None:
    for num_frames in range(1, 61):
        for start in {0, num_frames // 3, num_frames - 1}:
            for stop in {None, start + 1, num_frames + 5}:
                timeline = Timeline(grid)
                first = timeline.first_frame(start)
                placed = known(numbered(first, num_frames), timeline, first)
                parts = list(cut(placed, grid, first, stop))
                end = num_frames if stop is None else min(stop, num_frames)
                assert [c for c, _ in parts] == grid.touching(start, end, num_frames)
                for chunk, frames in parts:
                    assert frames[:, 0, 0, 0].tolist() == list(range(chunk.start, chunk.stop))


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_frames_come_once_and_in_order(grid: ChunkGrid) -> None:
    for num_frames in range(1, 41):
        got = numbers(restore(grid, num_frames, 0, None, identity))
        assert got == pytest.approx(range(num_frames), abs=1e-5)
        for start, stop in ((0, 1), (num_frames // 2, num_frames), (num_frames - 1, num_frames)):
            got = numbers(restore(grid, num_frames, start, stop, identity))
            assert got == pytest.approx(range(start, stop), abs=1e-5)


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_every_range_equals_the_whole(grid: ChunkGrid) -> None:
    """What a frame is made of does not depend on the range that was asked for."""
    for num_frames in (1, 2, grid.length, grid.length + 1, 15):
        whole = restore(grid, num_frames, 0, None, marked)
        for start in range(num_frames):
            for stop in range(start + 1, num_frames + 1):
                got = restore(grid, num_frames, start, stop, marked)
                assert numbers(got) == numbers(whole[start:stop])


SHOTS = [(0, 1), (0, 5, 6, 13), (0, 3, 17, 18)]


@pytest.mark.parametrize("shots", SHOTS, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_no_frame_mixes_two_shots(grid: ChunkGrid, shots: tuple[int, ...]) -> None:
    """A frame is of the chunks of its shot alone, and these hold frames of the shot alone."""
    num_frames = 22
    timeline = Timeline(grid, shots)
    ends = [timeline.shot_after(shot) or num_frames for shot in shots]
    seen: list[Chunk] = []

    def refine(frames: Tensor, chunk: Chunk) -> Tensor:
        assert frames[:, 0, 0, 0].tolist() == list(range(chunk.start, chunk.stop))
        seen.append(chunk)
        return frames * 0 + timeline.shot_of(chunk.start)

    whole = numbers(restore(grid, num_frames, 0, None, refine, shots))
    assert whole == [timeline.shot_of(n) for n in range(num_frames)]
    assert seen == timeline.touching(0, num_frames, num_frames)
    assert all(any(a <= c.start and c.stop <= b for a, b in zip(shots, ends, strict=True))
               for c in seen)  # fmt: skip


@pytest.mark.parametrize("shots", SHOTS, ids=str)
@pytest.mark.parametrize("grid", [g for g in GRIDS if g.length < 7], ids=str)
def test_every_range_equals_the_whole_of_several_shots(
    grid: ChunkGrid, shots: tuple[int, ...]
) -> None:
    whole = restore(grid, 22, 0, None, marked, shots)
    assert len(whole) == 22
    for start in range(22):
        for stop in (start + 1, start + 4, 22):
            got = restore(grid, 22, start, stop, marked, shots)
            assert numbers(got) == numbers(whole[start:stop])


def test_shared_frames_are_faded_from_one_chunk_to_the_next() -> None:
    grid = ChunkGrid(6, 2)
    got = numbers(restore(grid, 10, 0, None, lambda frames, chunk: frames * 0 + chunk.index))
    assert got == pytest.approx([0, 0, 0, 0, 17 / 81, 64 / 81, 1, 1, 1, 1], abs=1e-6)


def test_range_beyond_the_end_is_clamped() -> None:
    grid = ChunkGrid(4, 2)
    assert numbers(restore(grid, 5, 3, 100, identity)) == pytest.approx([3, 4])
    assert restore(grid, 5, 5, 100, identity) == []
    assert restore(grid, 5, 50, 60, identity) == []
    assert restore(grid, 0, 0, None, identity) == []


@pytest.mark.parametrize("start", [0, 3])
def test_without_refinement_the_range_holds_as_well(start: int) -> None:
    class Double:
        def upscale(self, frames: Tensor) -> Tensor:
            return frames * 2

    source = iter(numbered(start, 10))
    got = list(restore_frames(source, start, 6, None, Timeline(None), Double(), Clock()))
    assert numbers(got) == [2 * n for n in range(start, 6)]
    assert numbers([next(source)]) == [6]  # the frame behind the range was not even read


def test_trim_and_join_by_hand() -> None:
    pairs = [(n, torch.tensor(n)) for n in range(5)]
    assert [f.item() for f in trim(pairs, 1, 3)] == [1, 2]
    assert [f.item() for f in trim(pairs, 3, None)] == [3, 4]
    parts = [
        (Chunk(2, 8, 12), torch.zeros(4, 3, 1, 1)),
        (Chunk(3, 12, 13), torch.ones(1, 3, 1, 1)),
    ]
    joined = [(n, frame.mean().item()) for n, frame in join(parts, 4)]
    assert joined == [(8, 0), (9, 0), (10, 0), (11, 0), (12, 1)]


# -- laziness and memory -------------------------------------------------------------------------


class Source:
    """Frames made when they are asked for; counts those made and those still alive."""

    def __init__(self, num_frames: int, size: tuple[int, int] = (8, 8)):
        self.num_frames, self.size = num_frames, size
        self.made = self.alive = self.most = 0

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.num_frames):
            yield self._make()

    def _make(self) -> Tensor:
        frame = torch.full((3, *self.size), self.made / self.num_frames)
        self.made += 1
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(frame, self._lost)
        return frame

    def _lost(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("grid", [ChunkGrid(4, 2), ChunkGrid(8, 2), ChunkGrid(5, 0)])
def test_frames_held_are_bounded_by_a_chunk(grid: ChunkGrid) -> None:
    source, results = Source(60), 0
    for frame in restore_frames(source, 0, None, identity, Timeline(grid), None, Clock()):
        results += 1
        del frame
    assert results == 60
    assert source.most <= grid.length + grid.overlap
    assert source.alive == 0


@pytest.mark.parametrize("grid", [ChunkGrid(4, 2), ChunkGrid(8, 2), ChunkGrid(5, 0)])
def test_frames_are_pulled_only_as_needed(grid: ChunkGrid) -> None:
    source = Source(60)
    restored = restore_frames(source, 0, None, identity, Timeline(grid), None, Clock())
    assert source.made == 0
    for n in range(60):
        next(restored)
        last = grid.touching(0, n + 1, 60)[-1]  # the last chunk that frame n is made of
        assert source.made <= last.stop


def test_a_frame_that_is_kept_does_not_keep_its_chunk(clip: Callable[..., Tensor]) -> None:
    frames = list(clip(8, 4, 4))
    grid = ChunkGrid(4, 0)
    for frame in restore_frames(frames, 0, None, identity, Timeline(grid), None, Clock()):
        assert frame.untyped_storage().nbytes() == 3 * 4 * 4 * 4


def test_stream_is_lazy_and_bounded(load: Callable[..., Restorer]) -> None:
    source = Source(12, (16, 16))
    stream = load().stream(source, (16, 16))
    assert source.made == 0
    next(stream)
    assert source.made == 4  # one chunk
    assert sum(1 for _ in stream) == 11
    assert source.most <= 6 and source.alive == 0


def test_stream_looks_at_the_first_frame_alone(load: Callable[..., Restorer]) -> None:
    source = Source(12, (16, 16))
    stream = load().stream(source)
    next(stream)
    assert source.made == 4
