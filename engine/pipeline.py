"""The way of a clip, frame by frame: cut into chunks, refine, join, upscale.

Every stage is a generator over the one before, so that memory is bounded by a chunk, not by the
clip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice

import torch
from torch import Tensor

from .blend import cross_fade
from .report import Clock
from .sr import SuperResolver
from .tiling import ChunkGrid
from .types import Chunk

Refine = Callable[[Tensor, Chunk], Tensor]
Beside = Callable[[Iterator[Tensor]], Generator[Tensor, None, None]]


def restore_frames(
    frames: Iterable[Tensor],
    start: int,
    stop: int | None,
    refine: Refine | None,
    grid: ChunkGrid | None,
    sr: SuperResolver | None,
    clock: Clock,
    beside: Beside | None = None,
) -> Generator[Tensor, None, None]:
    """Frames `start .. stop - 1` of the clip, restored, each (3, sH, sW).

    `frames` are the clip's frames (3, H, W) from `first_frame(start, grid)` on: refinement needs
    the whole of every chunk that the range touches.  `beside` gives the refined frames as they are,
    made in another thread: the next chunk is refined while frames of this one are upscaled.
    """
    if refine is not None and grid is not None:
        chunks = cut(frames, grid, grid.first_touching(start), stop)
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


def first_frame(start: int, grid: ChunkGrid | None) -> int:
    """The first frame that has to be read so that frame `start` can be restored."""
    return start if grid is None else grid.first_touching(start) * grid.stride


def cut(
    frames: Iterable[Tensor], grid: ChunkGrid, index: int, stop: int | None
) -> Iterator[tuple[Chunk, Tensor]]:
    """Chunks `index`, `index + 1`, ... that begin before `stop`, each with its frames (T, 3, H, W).

    The last chunk of a clip is shorter than the grid's length; one that would hold nothing but
    frames of the chunk before does not exist.
    """
    source, first = iter(frames), index
    held: list[Tensor] = []
    while stop is None or index * grid.stride < stop:
        held.extend(islice(source, grid.length - len(held)))
        if len(held) <= (0 if index == first else grid.overlap):
            return
        start = index * grid.stride
        yield Chunk(index, start, start + len(held)), torch.stack(held)
        held = held[grid.stride :]
        index += 1


def join(refined: Iterable[tuple[Chunk, Tensor]], stride: int) -> Iterator[tuple[int, Tensor]]:
    """Numbered frames (3, H, W): neighbouring chunks are cross-faded over the frames they share."""
    tail, position = None, 0
    for chunk, frames in refined:
        if tail is not None:
            shared = len(tail)
            frames = torch.cat((cross_fade(tail, frames[:shared]), frames[shared:]))
        yield from enumerate(frames[:stride], chunk.start)
        tail, position = frames[stride:], chunk.start + stride
    if tail is not None:
        yield from enumerate(tail, position)


def trim(numbered: Iterable[tuple[int, Tensor]], start: int, stop: int | None) -> Iterator[Tensor]:
    """The frames numbered `start .. stop - 1`."""
    for number, frame in numbered:
        if stop is not None and number >= stop:
            return
        if number >= start:
            yield frame
