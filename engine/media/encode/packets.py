"""Encoded frames of one part of a video, in a file.

A container would do, but none keeps every codec's packets and times bit for bit without a parser
that looks into them.  Layout, little endian: `_HEAD` (magic, length), the codec's header of that
length, then for every packet `_ENTRY` and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import EngineError

SUFFIX = ".packets"
_HEAD = struct.Struct("<8sI")
_MAGIC = b"DTGPART1"
_ENTRY = struct.Struct("<qqBI")


class Entry(NamedTuple):
    """A packet without its bytes; times in ticks of the clip's unit."""

    pts: int
    duration: int
    is_key: bool
    size: int


def write_header(file: BinaryIO, codec_header: bytes) -> None:
    file.write(_HEAD.pack(_MAGIC, len(codec_header)) + codec_header)


def write_packet(file: BinaryIO, entry: Entry, content: memoryview | bytes) -> None:
    file.write(_ENTRY.pack(*entry))
    file.write(content)


def codec_header(path: Path) -> bytes:
    """The codec's header (FFmpeg's extradata) of a part; EngineError if it is damaged."""
    with path.open("rb") as file:
        return _codec_header(file, path)


def entries(path: Path) -> Iterator[Entry]:
    """What a part holds, in decoding order, without reading the packets."""
    with path.open("rb") as file:
        _codec_header(file, path)
        while entry := _entry(file, path):
            file.seek(entry.size, 1)
            yield entry


def packets(path: Path) -> Iterator[tuple[Entry, bytes]]:
    """Every packet of a part, in decoding order."""
    with path.open("rb") as file:
        _codec_header(file, path)
        while entry := _entry(file, path):
            yield entry, _exactly(file, entry.size, path)


def _codec_header(file: BinaryIO, path: Path) -> bytes:
    magic, length = _HEAD.unpack(_exactly(file, _HEAD.size, path))
    if magic != _MAGIC:
        raise EngineError(f"{path} is no part of a video")
    return _exactly(file, length, path)


def _entry(file: BinaryIO, path: Path) -> Entry | None:
    packed = file.read(_ENTRY.size)
    if not packed:
        return None
    if len(packed) < _ENTRY.size:
        raise EngineError(f"{path} is damaged")
    pts, duration, is_key, size = _ENTRY.unpack(packed)
    return Entry(pts, duration, bool(is_key), size)


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EngineError(f"{path} is damaged")
    return content
