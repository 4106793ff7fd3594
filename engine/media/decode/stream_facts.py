"""What a container says of its video stream, and how far to believe it."""

from __future__ import annotations

import contextlib
import os
import struct
from fractions import Fraction

import av
from av.sidedata.sidedata import Type as SideDataType

from ...errors import InputError

_FALLBACK_RATE = Fraction(25)
_FASTEST = 1000  # above that it is the tick of a clock


def claimed_rates(stream: av.VideoStream) -> list[Fraction]:
    """Frames per second, by several accounts, the likeliest first."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    known = [_standard(Fraction(rate)) for rate in rates if rate and rate <= _FASTEST]
    return known or [_FALLBACK_RATE]


def usual_rates(rate: Fraction) -> tuple[Fraction, Fraction]:
    """The nearest whole rate and the nearest of NTSC."""
    return Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)


def _standard(rate: Fraction) -> Fraction:
    """A whole rate, or one of NTSC, in place of what Matroska's nanoseconds have made of it."""
    nearest = min(usual_rates(rate), key=lambda known: abs(known - rate))
    return nearest if abs(nearest - rate) < rate / 100_000 else rate


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width of a pixel over its height, as stored (before rotation)."""
    return Fraction(stream.sample_aspect_ratio or 1)


def frames_before_cut(stream: av.VideoStream, path: str) -> int | None:
    """How many frames lie before the end of a file that is shorter than its index says.

    None where the file is whole, or the container has no index to tell.
    """
    size = os.path.getsize(path)
    entries = [e for e in stream.index_entries if not e.is_discard]
    intact = [e for e in entries if e.pos + e.size <= size]
    return len(intact) if len(intact) < len(entries) else None


def lacks_its_end(path: str) -> bool:
    """Whether a Matroska file ends before the end that its header tells; False for others."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return False
    length, segment = _ebml_size(head, 4)
    begin = segment + (length or 0)
    if head[begin : begin + 4] != b"\x18\x53\x80\x67":
        return False
    length, data = _ebml_size(head, begin + 4)
    return length is not None and size < data + length


def _ebml_size(data: bytes, place: int) -> tuple[int | None, int]:
    """The size of an element, None where it is left open, and where its content begins."""
    first = data[place] if place < len(data) else 0
    width = 9 - first.bit_length()  # leading zeros tell how many bytes follow
    stop = place + width
    value = int.from_bytes(data[place:stop], "big")
    if first == 0 or stop > len(data):
        return None, stop
    ones = (1 << 7 * width) - 1
    return (None if value & ones == ones else value & ones), stop


def claimed_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """How long the video is by the header; 0 where it does not tell."""
    if container.format.name == "avi" and stream.time_base:
        return float(stream.frames * stream.time_base)  # the duration is an estimate by size
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:  # Matroska: when it ends, as hours:minutes:seconds
        with contextlib.suppress(ValueError):
            hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))
            begin = float((stream.start_time or 0) * (stream.time_base or 0))
            return (hours * 60 + minutes) * 60 + seconds - begin
    alone = len(container.streams) == 1
    return container.duration / av.time_base if alone and container.duration else 0.0


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
