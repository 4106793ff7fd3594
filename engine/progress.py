"""How far a run is: a count of finished work, weighted by its floating-point operations."""

from __future__ import annotations

from .plan import Plan
from .sr import SRFacts
from .timeline import Timeline
from .types import Chunk, Progress

# Operations that cost about as much time as to code one pixel of a video.
CODING_FLOPS = 2000


class Meter:
    """Turns finished sampler steps and frames into `Progress`.

    Parameters
    ----------
    plan, sr : of the run; None where it lacks that stage.
    size : (height, width) of an input frame.
    timeline : of the clip.
    """

    def __init__(
        self, plan: Plan | None, sr: SRFacts | None, size: tuple[int, int], timeline: Timeline
    ):
        pixels = size[0] * size[1]
        scale, macs = (sr.scale, sr.macs_per_pixel) if sr else (1, 0)
        self._plan, self._timeline = plan, timeline
        self._per_frame = pixels * (2.0 * macs + CODING_FLOPS * scale**2)
        self._refined = 0.0  # work in chunks that are finished
        self._part = 0.0  # in the one that is refined, perhaps while frames leave the last stage
        self._frames = 0
        self._num_frames: int | None = None
        self._all_work: float | None = None

    def expect(self, start: int, stop: int | None, num_frames: int | None) -> None:
        """The run is over frames `start .. stop - 1` of a clip that claims `num_frames`."""
        self._num_frames = count_frames(start, stop, num_frames)
        if self._num_frames is not None:
            end = start + self._num_frames
            chunks = self._timeline.touching(start, end, num_frames or end)
            refine = sum(map(self._work, chunks))
            self._all_work = refine + self._num_frames * self._per_frame

    def step(self, done: int, total: int, chunk: Chunk) -> Progress:
        """Sampler step `done` of `total` of the current chunk is finished."""
        work = self._work(chunk)
        self._refined += work if done == total else 0.0
        self._part = 0.0 if done == total else work * done / total
        return Progress("refine", done, total, self._frames, self._num_frames, self._share())

    def frame(self) -> Progress:
        """One more frame has left the last stage."""
        self._frames += 1
        count = self._frames
        return Progress("restore", count, self._num_frames, count, self._num_frames, self._share())

    def _work(self, chunk: Chunk) -> float:
        return self._plan.flops(chunk) if self._plan else 0.0

    def _share(self) -> float | None:
        if not self._all_work:
            return None
        work = self._refined + self._part + self._frames * self._per_frame
        return min(1.0, work / self._all_work)


def count_frames(start: int, stop: int | None, num_frames: int | None) -> int | None:
    """Frames of `start .. stop - 1` in a clip of `num_frames`; None where nothing is known."""
    ends = [end for end in (stop, num_frames) if end is not None]
    return max(0, min(ends) - start) if ends else None
