"""One pass over the packets of a video: their time stamps, and where decoding can begin."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import av

from .container import codec_name, open_container, tells_order_alone, video_stream
from .key_frames import is_exact_start


@dataclass
class PacketTable:
    """What the packets of a video say of its frames.

    Parameters
    ----------
    time_base : unit of all stamps, in seconds.
    num_frames : packets that are shown.
    stamps : of the frames in the order of display, rising strictly; empty where they do not tell.
    last_duration : of the frame shown last; 0 where it is not told.
    starts : stamps, ascending, of the key frames from which on decoding is exact.
    trouble : what is wrong with the stamps, else None.
    """

    time_base: Fraction
    num_frames: int = 0
    stamps: array[int] = field(default_factory=lambda: array("q"))
    last_duration: int = 0
    starts: array[int] = field(default_factory=lambda: array("q"))
    trouble: str | None = None


def packet_table(path: str) -> PacketTable:
    """Read a file once, without decoding; up to where it is damaged.

    The tables of the last files are remembered while the files stay unchanged.
    """
    status = os.stat(path)
    return _packet_table(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _packet_table(path: str, _size: int, _changed: int) -> PacketTable:
    with open_container(path) as container:
        stream = video_stream(container, path)
        table = PacketTable(stream.time_base or Fraction(1, av.time_base))
        in_order = tells_order_alone(container)
        latest, decoded_until = None, None
        for packet in _shown(container, stream):
            table.num_frames += 1
            if packet.dts is not None:
                if decoded_until is not None and packet.dts < decoded_until:
                    table.trouble = "has time stamps that jump back"
                decoded_until = packet.dts
            stamp = packet.dts if in_order else packet.pts
            if stamp is None:
                continue
            table.stamps.append(stamp)
            if latest is None or stamp >= latest:
                latest, table.last_duration = stamp, packet.duration or 0
            if packet.is_keyframe and is_exact_start(stream, packet):
                table.starts.append(stamp)
        _put_in_order(table)
        if "mp4" in container.format.name and table.stamps:
            # Packets have the time to the next decoding; the track, how long it is shown.
            rest = (stream.duration or 0) - (table.stamps[-1] - table.stamps[0])
            table.last_duration = rest if rest > 0 else table.last_duration
    return table


def _shown(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets that give a frame; those that an edit list cuts away do not."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    is_vp8 = codec_name(stream) == "vp8"
    try:
        for packet in container.demux(stream):
            hidden = is_vp8 and packet.size and not memoryview(packet)[0] >> 4 & 1
            if packet.size and not packet.is_discard and not hidden:
                yield packet
    except (av.FFmpegError, OSError):
        return  # decoding meets the same place and says so


def _put_in_order(table: PacketTable) -> None:
    num_stamps = len(table.stamps)
    if num_stamps < table.num_frames and num_stamps:
        table.trouble = "has frames without a time stamp"
    if table.trouble or num_stamps < table.num_frames:
        table.stamps, table.starts = array("q"), array("q")
        return
    stamps = sorted(table.stamps)
    for i in range(1, num_stamps):
        if stamps[i] <= stamps[i - 1]:
            stamps[i] = stamps[i - 1] + 1
            table.trouble, table.starts = "has frames with the same time stamp", array("q")
    table.stamps, table.starts = array("q", stamps), array("q", sorted(table.starts))
