"""The way of a clip, frame by frame: cut into chunks, refine, join, upscale.

Every stage is a generator over the one before, so that memory is bounded by a chunk, not by the
clip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter

import torch
from torch import Tensor

from .blend import cross_fade
from .report import Clock
from .sr import SuperResolver
from .tiling import ChunkGrid
from .timeline import Timeline
from .types import Chunk

Refine = Callable[[Tensor, Chunk], Tensor]
Beside = Callable[[Iterator[Tensor]], Generator[Tensor, None, None]]
Placed = tuple[int, Tensor]  # the first frame of its shot, and a frame
Place = Callable[[Iterable[Tensor]], Iterator[Placed]]


def restore_frames(
    frames: Iterable[Tensor],
    start: int,
    stop: int | None,
    refine: Refine | None,
    timeline: Timeline,
    sr: SuperResolver | None,
    clock: Clock,
    beside: Beside | None = None,
    place: Place | None = None,
) -> Generator[Tensor, None, None]:
    """Frames `start .. stop - 1` of the clip, restored, each (3, sH, sW).

    `frames` are the clip's frames (3, H, W) from `timeline.first_frame(start)` on: refinement needs
    the whole of every chunk that the range touches.  `beside` gives the refined frames as they are,
    made in another thread: the next chunk is refined while frames of this one are upscaled.
    `place` finds the shots of frames that begin with the clip; without it they are the timeline's.
    """
    grid = timeline.grid
    if refine is not None and grid is not None:
        first = timeline.first_frame(start)
        placed = place(frames) if place else known(frames, timeline, first)
        chunks = cut(placed, grid, first, stop)
        refined = ((chunk, clock.call("refine", refine, part, chunk)) for chunk, part in chunks)
        frames = trim(join(refined, grid.stride), start, stop)
        if beside is not None:
            with closing(beside(frames)) as made:
                yield from finish(made, sr, clock)
            return
    elif stop is not None:
        frames = islice(frames, stop - start)
    yield from finish(frames, sr, clock)


def finish(frames: Iterable[Tensor], sr: SuperResolver | None, clock: Clock) -> Iterator[Tensor]:
    """The frames, upscaled, each in memory of the caller."""
    for frame in frames:
        # Cloned, a frame is the caller's: no view that keeps its whole chunk alive, nor one of
        # inference mode, which cannot be changed in place.
        yield frame.clone() if sr is None else clock.call("upscale", sr.upscale, frame[None])[0]


def known(frames: Iterable[Tensor], timeline: Timeline, first: int) -> Iterator[Placed]:
    """The frames, `first` and those behind it, each with the first frame of its shot."""
    return ((timeline.shot_of(number), frame) for number, frame in enumerate(frames, first))


def cut(
    placed: Iterable[Placed], grid: ChunkGrid, first: int, stop: int | None
) -> Iterator[tuple[Chunk, Tensor]]:
    """The chunks that begin before `stop`, in every shot on a grid of its own, each with its frames
    (T, 3, H, W).  Frame `first`, where `placed` begins, is the beginning of a chunk."""
    for shot, group in groupby(placed, key=itemgetter(0)):
        frames = map(itemgetter(1), group)
        if (yield from _cut_shot(frames, grid, shot, max(first, shot), stop)):
            return


def _cut_shot(
    frames: Iterator[Tensor], grid: ChunkGrid, shot: int, start: int, stop: int | None
) -> Generator[tuple[Chunk, Tensor], None, bool]:
    """The chunks of the shot that begins with frame `shot`, from frame `start` on; returns whether
    `stop` was reached.

    The last chunk of a shot is shorter than the grid's length; one that would hold nothing but
    frames of the chunk before does not exist.
    """
    held: list[Tensor] = []
    shared = 0
    while stop is None or start < stop:
        held.extend(islice(frames, grid.length - len(held)))
        if len(held) <= shared:
            return False
        yield Chunk((start - shot) // grid.stride, start, start + len(held)), torch.stack(held)
        if len(held) < grid.length:
            return False
        held = held[grid.stride :]
        start, shared = start + grid.stride, grid.overlap
    return True


def join(refined: Iterable[tuple[Chunk, Tensor]], stride: int) -> Iterator[tuple[int, Tensor]]:
    """Numbered frames (3, H, W): neighbouring chunks are cross-faded over the frames they share.

    Chunks of two shots share none.
    """
    tail: Tensor | None = None
    position = 0
    for chunk, frames in refined:
        if tail is not None and chunk.start < position + len(tail):
            shared = len(tail)
            frames = torch.cat((cross_fade(tail, frames[:shared]), frames[shared:]))
        elif tail is not None:
            yield from enumerate(tail, position)
        head, tail = frames[:stride], frames[stride:]
        yield from enumerate(head, chunk.start)
        position = chunk.start + len(head)
    if tail is not None:
        yield from enumerate(tail, position)


def trim(numbered: Iterable[tuple[int, Tensor]], start: int, stop: int | None) -> Iterator[Tensor]:
    """The frames numbered `start .. stop - 1`."""
    for number, frame in numbered:
        if stop is not None and number >= stop:
            return
        if number >= start:
            yield frame
