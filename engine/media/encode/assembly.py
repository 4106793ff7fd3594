"""The parts of a video and what is carried along from the source, put into one file."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import av

from ...errors import EngineError
from .encoding import Encoding
from .packets import Entry, codec_header, entries, packets

_LEAST_TICKS = 48000  # a second: they place sound as well


class Carried(Protocol):
    """Streams of the source that are copied beside the video."""

    def advance(self, seconds: float = math.inf) -> None:
        """Write what starts before `seconds` of output time."""

    def close(self) -> None: ...


class NothingCarried:
    """What a source without other streams has."""

    def advance(self, seconds: float = math.inf) -> None:
        pass

    def close(self) -> None:
        pass


# Adds its streams to the container, whose header is not yet written.
Carry = Callable[[av.container.OutputContainer], Carried]


def assemble(
    parts: Sequence[Path],
    target: Path,
    *,
    muxer: str,
    encoding: Encoding,
    time_base: Fraction,
    carry: Carry | None,
) -> None:
    """Write `target` from the parts, packet by packet.

    Parameters
    ----------
    parts : in the order of their frames.
    time_base : the unit of their times, in seconds.

    Raises
    ------
    EngineError : a part is damaged, or another version of the encoder has made it.
    OSError, av.FFmpegError : the file cannot be written.
    """
    times = ClipTimes(entry for part in parts for entry in entries(part))
    # Output must not depend on the day or on a random number: no time stamps, no unique ids.
    options = {"fflags": "+bitexact", **_muxer_options(muxer, time_base)}
    with av.open(f"file:{target}", "w", format=muxer, container_options=options) as container:
        stream = encoding.add_to(container)
        stream.time_base = time_base
        _check_headers(parts, stream.codec_context.extradata or b"")
        with closing(carry(container) if carry else NothingCarried()) as carried:
            container.start_encoding()
            for packet in _packets(parts, times):
                assert packet.dts is not None
                carried.advance(float(packet.dts * time_base))
                packet.stream, packet.time_base = stream, time_base
                container.mux(packet)
            carried.advance()


class ClipTimes:
    """When the packets of a clip are decoded and shown; the first frame is shown at 0.

    A packet is decoded before it is shown, and after those before it.  So with d the greatest
    number of places that a packet is sent ahead, packet i is decoded when frame i - d is shown.
    The first d packets precede time 0 by the last d intervals: then the clip is as long by its
    decoding times, which some containers store alone, as it is shown.

    Parameters
    ----------
    entries : in decoding order.

    Raises
    ------
    EngineError : two frames have the same time.
    """

    def __init__(self, entries: Iterable[Entry]):
        decoded = array("q")
        latest = None
        for entry in entries:
            decoded.append(entry.pts)
            if latest is None or entry.pts > latest.pts:
                latest = entry
        assert latest is not None
        self._shown = array("q", sorted(decoded))
        if any(a == b for a, b in pairwise(self._shown)):
            raise EngineError("two frames of the clip have the same time")
        self._end = latest.pts + latest.duration
        self._depth = max(i - self._place(pts) for i, pts in enumerate(decoded))

    def of(self, index: int, pts: int) -> tuple[int, int, int]:
        """(pts, dts, duration) of packet `index`, with the time that its part has for it."""
        shown, first = self._shown, self._shown[0]
        is_last = index == len(shown) - 1
        place = len(shown) - 1 if is_last else self._place(pts)
        following = shown[place + 1] if place + 1 < len(shown) else self._end
        return pts - first, self._decoded_at(index) - first, following - shown[place]

    def _decoded_at(self, index: int) -> int:
        shown, place = self._shown, index - self._depth
        return shown[place] if place >= 0 else shown[0] - shown[-1] + shown[place - 1]

    def _place(self, pts: int) -> int:
        return bisect_left(self._shown, pts)


def _packets(parts: Sequence[Path], times: ClipTimes) -> Iterator[av.Packet]:
    index = 0
    for part in parts:
        for entry, content in packets(part):
            packet: av.Packet = av.Packet(content)
            packet.pts, packet.dts, packet.duration = times.of(index, entry.pts)
            packet.is_keyframe = entry.is_key
            yield packet
            index += 1


def _check_headers(parts: Sequence[Path], expected: bytes) -> None:
    for part in parts:
        if codec_header(part) != expected:
            raise EngineError(f"{part} was made by another version or setting of the encoder")


def _muxer_options(muxer: str, time_base: Fraction) -> dict[str, str]:
    if muxer not in ("mp4", "mov"):
        return {}
    ticks = time_base.denominator
    while ticks < _LEAST_TICKS:
        ticks *= 2
    # The default of a millisecond cuts a part of the last frame off.
    return {"movflags": "+faststart", "movie_timescale": str(ticks)}
