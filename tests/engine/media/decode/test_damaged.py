"""Files that are cut short or overwritten: frames and a word, or one clear error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dtg_restore.engine.errors import InputError
from dtg_restore.engine.media import open_reader, probe

STAMPS = [1000 * i for i in range(80)]
FAST = {"deadline": "realtime", "cpu-used": "8"}
HEVC = {"x265-params": "log-level=none:keyint=12:open-gop=1"}
KINDS = [
    ("a.mp4", "libx264", {"bf": "2"}),
    ("a.mkv", "libx264", {"bf": "2"}),
    ("a.ts", "libx264", {"bf": "2"}),
    ("a.mp4", "libx265", HEVC),
    ("a.webm", "libvpx-vp9", FAST),
    ("a.mkv", "ffv1", {}),
    ("a.avi", "mjpeg", {}),
]


def damaged(whole: bytes, how: str, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(whole) // 20, len(whole)))
    if how == "cut":
        return whole[:at]
    if how == "hole":
        return whole[:at] + whole[at + 500 :]
    filling = random.bytes(300) if how == "noise" else bytes(3000)
    return whole[:at] + filling + whole[at + len(filling) :]


@pytest.mark.parametrize("how", ["cut", "hole", "noise", "zeros"])
@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
def test_frames_in_order_or_one_line(
    tmp_path: Path, encode: Callable[..., Path], how: str, name: str, codec: str, options: dict
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(tmp_path / name, codec, STAMPS, pix_fmt, **options)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(2):
        path.write_bytes(damaged(whole, how, random))
        for start, stop in ((0, None), (70, 73)):
            try:
                probe(path, stop)
                with open_reader(path, start, stop) as reader:
                    count = len(list(reader))
                    notes = [reader.take_note(start + i) for i in range(count)]
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                continue
            ends = [0, *(note.time + note.duration for note in notes)]
            assert all(note.duration > 0 for note in notes)
            assert all(note.time >= end for note, end in zip(notes, ends, strict=False))


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_half_a_file_is_told(
    tmp_path: Path, encode: Callable[..., Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode(tmp_path / name, "ffv1", STAMPS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with caplog.at_level(logging.WARNING, "dtg_restore"), open_reader(path) as reader:
        count = len(list(reader))
    assert 50 < count < 70
    assert probe(path).num_frames - 1 <= count <= probe(path).num_frames
    assert "cut short" in caplog.text
    assert len(caplog.records) == 1


def test_late_video_is_not_cut_short(
    tmp_path: Path, encode: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Matroska tells when a track ends, not how long it is."""
    path = encode(tmp_path / "a.mkv", "ffv1", [24000 + stamp for stamp in STAMPS])
    with caplog.at_level(logging.WARNING, "dtg_restore"), open_reader(path) as reader:
        assert len(list(reader)) == len(STAMPS)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_one_frame(tmp_path: Path, encode: Callable[..., Path], name: str) -> None:
    path = encode(tmp_path / name, "libx264", [0])
    info = probe(path)
    assert (info.num_frames, info.time_base) == (1, None)
    assert 1 <= info.fps <= 600
    with open_reader(path) as reader:
        assert len(list(reader)) == 1
        assert reader.take_note(0).time == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_no_frame(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 24)
        container.start_encoding()
    with pytest.raises(InputError, match=r"a\.\w+ (holds no|is not a readable)"):
        open_reader(path)
