"""Entering a video near a frame, where that gives the frames that decoding all of it gives."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import av

from .packet_table import PacketTable, packet_table

# Decoding up to here costs less than a pass over all packets.
FAR = 64
# Some demuxers land behind where they were asked to: then an earlier key frame is tried.
_TRIES = 3

Decode = Callable[[Iterator[av.Packet], int], Iterator[av.VideoFrame]]
Numbered = Iterator[tuple[int, av.VideoFrame]]


def frames_near(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    start: int,
    first_pts: int | None,
    decode: Decode,
) -> Numbered | None:
    """Numbered frames from `start - 1` on; None where only the beginning gives the same frames.

    The frame before `start` is for deinterlacing.  `container` has been moved, also if it is None.
    `first_pts` is the stamp of frame 0; `decode(packets, number)` gives the frames of packets, of
    which the first has that number.
    """
    table = packet_table(path)
    if first_pts is None or first_pts not in table.stamps:
        return None
    stamps = table.stamps[table.stamps.index(first_pts) :]
    if start > len(stamps):
        return None
    last = bisect_right(table.starts, stamps[start - 1])
    for place in range(last - 1, max(-1, last - 1 - _TRIES), -1):
        container.seek(table.starts[place], stream=stream)
        packets = _from_start(container.demux(stream), table)
        first = next(packets, None)
        if first is not None and first.pts is not None and first.pts <= stamps[start - 1]:
            number = bisect_left(stamps, first.pts)
            return _proven(decode(chain((first,), packets), number), stamps, number, start - 1)
    return None


def _from_start(packets: Iterator[av.Packet], table: PacketTable) -> Iterator[av.Packet]:
    """Packets from the first one on that decoding can start with."""
    starts = set(table.starts)
    for packet in packets:
        if packet.is_keyframe and packet.pts in starts:
            yield packet
            yield from packets


def _proven(
    frames: Iterator[av.VideoFrame], stamps: Sequence[int], number: int, wanted: int
) -> Numbered | None:
    """Frames from `wanted` on, if each up to there is the one that the packets announce."""
    begin = stamps[number]
    for frame in frames:
        if frame.pts is None:
            return None
        if frame.pts < begin:  # shown before the key frame, decoded behind it
            continue
        if number >= len(stamps) or frame.pts != stamps[number]:
            return None
        if number == wanted:
            return chain(((number, frame),), enumerate(frames, number + 1))
        number += 1
    return None
