"""What a container says of its video stream, and how far to believe it."""

from __future__ import annotations

import os
import struct
from fractions import Fraction

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from ..errors import InputError

_FALLBACK_RATE = Fraction(25)


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Average frames per second."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate else _FALLBACK_RATE


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width of a pixel over its height, as stored (before rotation)."""
    return Fraction(stream.sample_aspect_ratio or 1)


def frames_before_cut(stream: av.VideoStream, path: str) -> int | None:
    """How many frames lie before the end of a file that is shorter than its index says.

    None where the file is whole, or the container has no index to tell.
    """
    size = os.path.getsize(path)
    entries = list(stream.index_entries)
    intact = [e for e in entries if e.pos + e.size <= size]
    return len(intact) if len(intact) < len(entries) else None


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether it is a picture beside the video, as music files have it."""
    return bool(stream.disposition & Disposition.attached_pic)


def claimed_frames(container: av.container.InputContainer, stream: av.VideoStream) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        seconds = stream.duration * stream.time_base
    elif container.duration:
        seconds = Fraction(container.duration, av.time_base)
    else:
        return None
    return max(1, round(seconds * frame_rate(stream)))


def orientation(frame: av.VideoFrame, path: str) -> tuple[int, bool]:
    """(quarter turns counter-clockwise, mirrored left-right before) that show a frame upright."""
    data = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    if data is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", memoryview(data))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    turns = {(1, 0): 0, (0, -1): 1, (-1, 0): 2, (0, 1): 3}
    key = (_sign(a), _sign(b))
    if key not in turns:
        raise InputError(f"{path} is rotated by other than a multiple of 90 degrees")
    return turns[key], mirrored


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
