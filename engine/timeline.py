"""The timeline of a clip: its shots, and the grid of chunks that starts anew at each of them.

All of it is absolute: what a frame is made of, and where a part of the output ends, do not depend
on the range of frames that a run was asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from .errors import ConfigError
from .tiling import ChunkGrid
from .types import Chunk

PART_FRAMES = 48  # that a part of the output has at least, unless its shot is shorter


@dataclass(frozen=True)
class Timeline:
    """Where chunks and parts begin on a clip.

    Parameters
    ----------
    grid : of chunks in a shot; None where there is no refinement.
    shots : the first frame of every shot, rising from 0.
    """

    grid: ChunkGrid | None
    shots: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.shots[:1] != (0,) or any(b <= a for a, b in pairwise(self.shots)):
            raise ConfigError("shots begin with frame 0, and their first frames rise")

    def shot_of(self, frame: int) -> int:
        """The first frame of the shot that holds `frame`."""
        return self.shots[bisect_right(self.shots, frame) - 1]

    def shot_after(self, frame: int) -> int | None:
        """The first frame of the shot behind `frame`; None where it lies in the last."""
        index = bisect_right(self.shots, frame)
        return self.shots[index] if index < len(self.shots) else None

    def first_frame(self, start: int) -> int:
        """The first frame that has to be read so that frame `start` can be restored."""
        if self.grid is None:
            return start
        shot = self.shot_of(start)
        return shot + self.grid.first_touching(start - shot) * self.grid.stride

    def touching(self, start: int, stop: int, num_frames: int) -> list[Chunk]:
        """Every chunk that contains a frame of `start .. stop - 1` of a clip of `num_frames`."""
        if self.grid is None:
            return []
        chunks: list[Chunk] = []
        while start < min(stop, num_frames):
            first, after = self.shot_of(start), self.shot_after(start)
            last = num_frames if after is None else min(after, num_frames)
            inside = self.grid.touching(start - first, min(stop, last) - first, last - first)
            chunks += (Chunk(c.index, c.start + first, c.stop + first) for c in inside)
            start = last
        return chunks

    def part_end(self, frame: int) -> int:
        """The first frame above `frame` at which a part of the output ends.

        Parts end with their shot, and inside it at the beginnings of chunks: a run that goes on
        there refines again only the chunk that the frames before share.
        """
        first, after = self.shot_of(frame), self.shot_after(frame)
        stride = self.grid.stride if self.grid else 1
        length = -(-PART_FRAMES // stride) * stride
        end = frame + length - (frame - first) % length
        return end if after is None else min(end, after)
