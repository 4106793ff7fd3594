"""When the frames of a video are shown, found without decoding any."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise

import av

from .container import has_fragments, open_container, video_stream
from .packet_table import packet_table
from .stream_facts import claimed_rates

# A container that counts milliseconds moves a frame by up to 1 ms off the grid.
_JITTER = Fraction(3, 2000)
# Packets whose order of display is compared with the index, and the deepest reordering.
_SAMPLE, _REORDERED = 64, 17


@dataclass(frozen=True)
class TimeStamps:
    """When every frame of a video is shown.

    Parameters
    ----------
    fps : the constant rate, or the average one.
    num_frames : in the container, by its index or its packets.
    time_base : unit of the stamps in seconds; None where the rate is constant.
    stamps : ascending, of all frames; empty where the rate is constant.
    last_duration : of the last frame, in units of `time_base`.
    on_frames : whether decoded frames carry these very stamps; else the n-th frame has the n-th.
    trouble : what is wrong with the container's stamps, else None.
    """

    fps: Fraction
    num_frames: int
    time_base: Fraction | None = None
    stamps: Sequence[int] = ()
    last_duration: int = 0
    on_frames: bool = True
    trouble: str | None = None

    def span(self, number: int, pts: int | None = None) -> tuple[Fraction, Fraction]:
        """Seconds since the first frame, and duration, of a frame.

        `pts` is the stamp that it carries: it tells the place where frames before it were lost.
        """
        if self.time_base is None:
            return number / self.fps, 1 / self.fps
        if self.on_frames and pts is not None:
            place = bisect_left(self.stamps, pts)
            if number < place < len(self.stamps) and self.stamps[place] == pts:
                number = place
        begin, end = self._stamp(number), self._stamp(number + 1)
        return (begin - self.stamps[0]) * self.time_base, (end - begin) * self.time_base

    def _stamp(self, number: int) -> int:
        """Also of frames behind the last one."""
        beyond = max(0, number + 1 - len(self.stamps))
        return self.stamps[number - beyond] + beyond * self.last_duration


def time_stamps(path: str) -> TimeStamps:
    """Time stamps of a video: from its index where that is complete, else from its packets.

    The rate is constant where every frame lies within a tick or 1.5 ms of a regular grid.

    Raises
    ------
    InputError : no video.
    """
    status = os.stat(path)
    return _time_stamps(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _time_stamps(path: str, _size: int, _changed: int) -> TimeStamps:
    with open_container(path) as container:
        stream = video_stream(container, path)
        rates = claimed_rates(stream)
        time_base = stream.time_base
        in_order = container.format.name == "avi"  # the only times that it has
        index = _index(stream, path)
        if index and time_base:
            rate = regular_rate(index, time_base, rates)
            if rate and (in_order or regular_rate(_sample(container, stream), time_base, [rate])):
                return TimeStamps(rate, len(index), on_frames=not in_order)
            if in_order:
                return _varying(index, time_base, 0, on_frames=False)
    table = packet_table(path)
    rate = regular_rate(table.stamps, table.time_base, rates)
    if rate or not table.stamps:
        return TimeStamps(
            rate or rates[0], table.num_frames, on_frames=not in_order, trouble=table.trouble
        )
    return _varying(
        table.stamps,
        table.time_base,
        table.last_duration,
        on_frames=not in_order,
        trouble=table.trouble,
    )


def regular_rate(
    stamps: Sequence[int], time_base: Fraction, claimed: Iterable[Fraction]
) -> Fraction | None:
    """The rate of the grid that all stamps lie on, ascending ones; None where there is none."""
    claimed = list(claimed)
    if len(stamps) < 2:
        return claimed[0] if stamps else None
    span = stamps[-1] - stamps[0]
    if span <= 0:
        return None
    mean = (len(stamps) - 1) / (span * time_base)
    near = (Fraction(round(mean)), Fraction(round(mean * 1001 / 1000) * 1000, 1001))
    for rate in (*claimed, *near, mean.limit_denominator(1001)):
        if rate > 0 and _is_on_grid(stamps, time_base, rate):
            return rate
    return None


def _is_on_grid(stamps: Sequence[int], time_base: Fraction, rate: Fraction) -> bool:
    # In units in which ticks and periods are whole numbers.
    tick = time_base.numerator * rate.numerator
    period = rate.denominator * time_base.denominator
    seconds = rate.numerator * time_base.denominator
    allowed = max(tick - 1, min(int(_JITTER * seconds), period // 4))
    first = stamps[0]
    return all(abs((s - first) * tick - i * period) <= allowed for i, s in enumerate(stamps))


def _varying(
    stamps: Sequence[int],
    time_base: Fraction,
    last_duration: int,
    *,
    on_frames: bool = True,
    trouble: str | None = None,
) -> TimeStamps:
    last_duration = last_duration or stamps[-1] - stamps[-2]
    seconds = (stamps[-1] - stamps[0] + last_duration) * time_base
    fps = (len(stamps) / seconds).limit_denominator(100_000)
    return TimeStamps(fps, len(stamps), time_base, stamps, last_duration, on_frames, trouble)


def _index(stream: av.VideoStream, path: str) -> list[int]:
    """Stamps of decoding of all shown frames; empty where the container does not list them."""
    name = stream.container.format.name
    if "avi" not in name and ("mp4" not in name or has_fragments(path)):
        return []
    entries = list(stream.index_entries)
    if "avi" in name and len(entries) > stream.frames:
        return []
    stamps = [e.timestamp for e in entries if e.size > 0 and not e.is_discard]
    return stamps if all(a < b for a, b in pairwise(stamps)) else []


def _sample(container: av.container.InputContainer, stream: av.VideoStream) -> list[int]:
    """Stamps of display at the beginning."""
    packets = islice(container.demux(stream), _SAMPLE)
    try:
        stamps = sorted(p.pts for p in packets if p.pts is not None and not p.is_discard)
    except (av.FFmpegError, OSError):
        return []
    return stamps if len(stamps) < _SAMPLE - 1 else stamps[:-_REORDERED]
