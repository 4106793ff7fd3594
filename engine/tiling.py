"""The grids of chunks (time) and tiles (space), in integers.

The grid of chunks is absolute: chunk k covers frames `k * stride` to `k * stride + length - 1` of
its shot, whichever part of the clip a worker was given.  So every division of the work over workers
computes the same chunks, and gives the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError
from .types import Chunk, Tile


@dataclass(frozen=True)
class ChunkGrid:
    """Chunks of `length` frames, `overlap` of them shared with the chunk before.

    Frames are counted from the first of their shot; `Timeline` has them on the clip.
    """

    length: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.length:
            raise ConfigError(
                f"overlap is {self.overlap}: it must be at most half of the chunk ({self.length})"
            )

    @property
    def stride(self) -> int:
        return self.length - self.overlap

    def first_touching(self, frame: int) -> int:
        """The index of the first chunk that contains `frame`."""
        return max(0, (frame - self.length) // self.stride + 1)

    def exists(self, index: int, num_frames: int) -> bool:
        """Whether a clip has chunk `index`: one that adds no frame to the last is left out."""
        return num_frames > (0 if index == 0 else index * self.stride + self.overlap)

    def chunk(self, index: int, num_frames: int) -> Chunk:
        start = index * self.stride
        return Chunk(index, start, min(start + self.length, num_frames))

    def touching(self, start: int, stop: int, num_frames: int) -> list[Chunk]:
        """Every chunk that contains a frame of `start .. stop - 1` of a clip of `num_frames`."""
        chunks = []
        index = self.first_touching(start)
        while index * self.stride < stop and self.exists(index, num_frames):
            chunks.append(self.chunk(index, num_frames))
            index += 1
        return chunks


def starts(size: int, window: int, overlap: int, multiple: int) -> list[int]:
    """Starts of windows that cover `size`, evenly spread, on multiples of `multiple`.

    `size` and `window` are multiples themselves; neighbours share `overlap` or more, or as much as
    steps of `multiple` allow.
    """
    if window >= size:
        return [0]
    step = max(multiple, (window - overlap) // multiple * multiple)
    gaps = -(-(size - window) // step)
    units = (size - window) // multiple
    return [round(i * units / gaps) * multiple for i in range(gaps + 1)]


def tiles(
    height: int, width: int, tile: tuple[int, int], overlap: int, multiple: int
) -> list[Tile]:
    """The tiles of a frame, row by row.  `tile` is (width, height); 0 means the whole side."""
    tile_width = min(tile[0] or width, width)
    tile_height = min(tile[1] or height, height)
    return [
        Tile(y, x, tile_height, tile_width)
        for y in starts(height, tile_height, overlap, multiple)
        for x in starts(width, tile_width, overlap, multiple)
    ]


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def round_frames(frames: int, multiple: int, offset: int) -> int:
    """The next count of frames that obeys the rule `multiple * k + offset`."""
    return round_up(max(0, frames - offset), multiple) + offset
