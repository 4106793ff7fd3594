"""When the frames of a video are shown, found without decoding any."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise

import av

from .container import has_fragments, open_container, tells_order_alone, video_stream
from .packet_table import PacketTable, packet_table
from .stream_facts import claimed_rates, usual_rates

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
    stamps : ascending, of all frames; empty where the index tells of a constant rate.
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

    def beginning_with(self, pts: int | None) -> TimeStamps:
        """Without the frames before the first one that can be decoded, as a recording has them."""
        first = bisect_left(self.stamps, pts) if pts is not None and self.on_frames else 0
        if not 0 < first < len(self.stamps) or self.stamps[first] != pts:
            return self
        stamps = self.stamps[first:]
        return replace(self, stamps=stamps, num_frames=len(stamps))

    def place(self, pts: int | None, least: int) -> int:
        """Which of the stamps a frame has: the one it carries, if that is not below `least`."""
        if self.time_base is None or pts is None or not self.on_frames:
            return least
        found = bisect_left(self.stamps, pts)
        is_known = found < len(self.stamps) and self.stamps[found] == pts
        return max(found, least) if is_known else least

    def span(self, place: int) -> tuple[Fraction, Fraction]:
        """Seconds since the first frame, and duration, of the frame with that stamp."""
        if self.time_base is None:
            return place / self.fps, 1 / self.fps
        begin, end = self._stamp(place), self._stamp(place + 1)
        return (begin - self.stamps[0]) * self.time_base, (end - begin) * self.time_base

    def gap(self) -> tuple[int, float] | None:
        """The frame shown longest and for how long, where all others are nearly regular."""
        if self.time_base is None:
            return None
        lengths = [b - a for a, b in pairwise(self.stamps)]
        usual, longest = sorted(lengths)[len(lengths) // 2], max(lengths)
        regular = sum(abs(length - usual) <= 0.1 * usual for length in lengths)
        if longest < 5 * usual or regular < 0.9 * len(lengths):
            return None
        return lengths.index(longest), float(longest * self.time_base)

    def _stamp(self, place: int) -> int:
        """Also of frames behind the last one."""
        beyond = max(0, place + 1 - len(self.stamps))
        return self.stamps[place - beyond] + beyond * self.last_duration


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
        in_order = tells_order_alone(container)
        known = _from_index(container, stream, path, rates, in_order)
    return known or _from_packets(packet_table(path), rates, in_order)


def _from_index(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    path: str,
    rates: list[Fraction],
    in_order: bool,
) -> TimeStamps | None:
    """None where the index is not enough."""
    index, time_base = _index(stream, path), stream.time_base
    if not index or not time_base:
        return None
    rate = regular_rate(index, time_base, rates)
    if rate is None:
        return _varying(index, time_base, 0, on_frames=False) if in_order else None
    if in_order or regular_rate(_sample(container, stream), time_base, [rate]) == rate:
        return TimeStamps(rate, len(index), on_frames=not in_order)
    return None


def _from_packets(table: PacketTable, rates: list[Fraction], in_order: bool) -> TimeStamps:
    rate = regular_rate(table.stamps, table.time_base, rates)
    if rate is None and table.stamps:
        known = _varying(table.stamps, table.time_base, table.last_duration, on_frames=not in_order)
        return replace(known, trouble=table.trouble)
    return TimeStamps(
        rate or rates[0],
        table.num_frames,
        stamps=table.stamps,
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
    usual = [rate for rate in claimed if rate.denominator in (1, 1001)]
    rates = dict.fromkeys((*usual, *usual_rates(mean), *claimed, mean.limit_denominator(1001)))
    for by_tick in (True, False):  # the finer measure tells 24 from 23.976 in a short clip
        for rate in filter(None, rates):
            # Only a rate that is known may have been rounded to a clock as coarse as its frames.
            coarse = rate not in claimed and 4 * time_base * rate > 1
            jitter = min(_JITTER, 1 / (4 * rate))
            if by_tick:
                jitter = Fraction(0) if coarse else time_base
            if _is_on_grid(stamps, time_base, rate, jitter):
                return rate
    return None


def _is_on_grid(
    stamps: Sequence[int], time_base: Fraction, rate: Fraction, jitter: Fraction
) -> bool:
    """Whether no stamp is `jitter` seconds off, or 0 where it is exact."""
    # In units in which ticks, periods and seconds are whole numbers.
    tick = time_base.numerator * rate.numerator
    period = rate.denominator * time_base.denominator
    limit = max(1, math.ceil(jitter * rate.numerator * time_base.denominator))
    first = stamps[0]
    return all(abs((s - first) * tick - i * period) < limit for i, s in enumerate(stamps))


def _varying(
    stamps: Sequence[int], time_base: Fraction, last_duration: int, *, on_frames: bool
) -> TimeStamps:
    last_duration = last_duration or stamps[-1] - stamps[-2]
    seconds = (stamps[-1] - stamps[0] + last_duration) * time_base
    fps = (len(stamps) / seconds).limit_denominator(100_000)
    return TimeStamps(fps, len(stamps), time_base, stamps, last_duration, on_frames)


def _index(stream: av.VideoStream, path: str) -> list[int]:
    """Stamps of decoding of all shown frames; empty where the container does not list them."""
    name = stream.container.format.name
    if "avi" not in name and ("mp4" not in name or has_fragments(path)):
        return []
    entries = list(stream.index_entries)
    if "avi" in name and len(entries) != stream.frames:
        return []  # what was seen when the file was opened
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
