"""One part of a video: an encoder of its own and a file of what it gives."""

from __future__ import annotations

import contextlib
from pathlib import Path

import av
import torch

from ...disk import sync, sync_folder
from ..planes import rgb_to_frame
from .encoding import Encoding
from .packets import Entry, write_header, write_packet


class PartWriter:
    """Encodes frames into `path`, which appears under its name when `finish` is called.

    The encoder starts with a key frame and is flushed at the end, so that no part needs another.
    """

    def __init__(self, encoding: Encoding, path: Path):
        self._encoding, self._path = encoding, path
        self._encoder = encoding.open()
        self._unfinished = path.with_name(path.name + ".part")
        self._file = self._unfinished.open("wb")
        self._times: dict[int, tuple[int, int]] = {}  # of the frames inside the encoder
        self._count = 0
        write_header(self._file, self._encoder.extradata or b"")

    def write(self, frame: torch.Tensor, pts: int, duration: int) -> None:
        """Append RGB (3, H, W) that is shown at `pts` for `duration`, in the clip's unit."""
        picture = rgb_to_frame(frame, self._encoding.pix_fmt, self._encoding.colour)
        picture.pts, picture.time_base = self._count, self._encoder.time_base
        self._times[self._count] = (pts, duration)
        self._count += 1
        self._store(self._encoder.encode(picture))

    def finish(self) -> int:
        """Put everything on the disk; the size of the file in bytes."""
        self._store(self._encoder.encode(None))
        self._file.close()
        sync(self._unfinished)
        self._unfinished.replace(self._path)
        sync_folder(self._path.parent)
        return self._path.stat().st_size

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # what is buffered may not fit on the disk
            self._file.close()
        self._unfinished.unlink(missing_ok=True)

    def _store(self, made: list[av.Packet]) -> None:
        for packet in made:
            assert packet.pts is not None
            pts, duration = self._times.pop(packet.pts)
            entry = Entry(pts, duration, packet.is_keyframe, packet.size)
            write_packet(self._file, entry, memoryview(packet))
