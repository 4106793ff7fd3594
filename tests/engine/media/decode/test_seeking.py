"""A range far in a file gives the frames that decoding all of it gives, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.media import open_reader
from dtg_restore.engine.media.decode import reader as video_reader
from dtg_restore.engine.media.decode import seeking
from dtg_restore.engine.media.decode.h264 import only_frames
from dtg_restore.engine.media.decode.packet_table import packet_table

NUM_FRAMES = 100
STAMPS = [1000 * i + 250 * (i % 3 == 0) for i in range(NUM_FRAMES)]  # a variable rate
GOP = "keyint=12:min-keyint=12:scenecut=0"
HEVC = f"log-level=none:{GOP}:bframes=4:b-pyramid=1"
FAST = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"}


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each reader that was opened far in its file came in at a key frame."""
    results = []

    def watch(*args: Any) -> Any:
        frames = seeking.frames_near(*args)
        results.append(frames is not None)
        return frames

    monkeypatch.setattr(video_reader, "frames_near", watch)
    return results


@pytest.mark.parametrize(
    ("name", "codec", "options", "starts"),
    [
        ("a.mp4", "libx264", {"bf": "2", "x264-params": GOP}, 9),
        ("a.mkv", "libx264", {"bf": "2", "x264-params": f"{GOP}:open-gop=1"}, 1),
        ("a.mp4", "libx264", {"x264-params": f"{GOP}:intra-refresh=1"}, 1),
        ("a.ts", "libx264", {"bf": "2", "x264-params": GOP}, 9),
        ("a.mkv", "libx264", {"bf": "2", "flags": "+ildct+ilme", "x264-params": "tff=1"}, 0),
        ("a.mkv", "libx264", {"x264-params": f"{GOP}:fake-interlaced=1"}, 0),
        ("a.mov", "libx264", {"profile": "baseline", "x264-params": GOP}, 9),
        ("a.avi", "libx264", {"bf": "2"}, 0),
        ("a.h264", "libx264", {"bf": "2"}, 0),
        ("a.mp4", "libx265", {"x265-params": f"{HEVC}:open-gop=1"}, 9),
        ("a.mkv", "libx265", {"x265-params": f"{HEVC}:open-gop=0:radl=2"}, 9),
        ("a.webm", "libvpx-vp9", FAST, 9),
        ("a.webm", "libvpx", FAST, 0),
        ("a.mkv", "libsvtav1", {"preset": "10", "svtav1-params": "keyint=12"}, 9),
        ("a.mov", "prores_ks", {}, 100),
        ("a.mkv", "ffv1", {}, 9),
        ("a.mp4", "mpeg4", {"bf": "2"}, 0),
    ],
)
def test_same_frames(
    tmp_path: Path,
    encode: Callable[..., Path],
    entered: list[bool],
    name: str,
    codec: str,
    options: dict[str, str],
    starts: int,
) -> None:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = encode(tmp_path / name, codec, STAMPS, pix_fmt=pix_fmt, **options)
    with open_reader(path) as reader:
        whole = list(reader)
        notes = [reader.take_note(i) for i in range(NUM_FRAMES)]
    assert len(packet_table(str(path)).starts) == starts
    for start in (64, 71, 72, 73, 84, 98, 99):
        with open_reader(path, start, start + 2) as reader:
            part = list(reader)
            note = reader.take_note(start)
        assert len(part) == min(2, NUM_FRAMES - start)
        assert all(map(torch.equal, part, whole[start : start + 2]))
        assert note == notes[start]
    assert set(entered) == {starts > 0}


def test_recording_that_begins_between_key_frames(
    tmp_path: Path, encode: Callable[..., Path], entered: list[bool]
) -> None:
    """The packets before the first key frame give no frames: they have no numbers and no time."""
    path = encode(tmp_path / "a.ts", "libx264", STAMPS, **{"bf": "2", "x264-params": GOP})
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 20 // 188 * 188 :])
    with open_reader(path) as reader:
        whole = list(reader)
        notes = [reader.take_note(i) for i in range(len(whole))]
        assert reader.info.num_frames == len(whole) < NUM_FRAMES
    assert notes[0].time == 0
    assert notes[1].time == notes[0].duration < 0.1
    with open_reader(path, 70, 75) as reader:
        assert all(map(torch.equal, reader, whole[70:75]))
        assert reader.take_note(70) == notes[70]
    assert entered == [True]


def test_unknown_parameter_sets_allow_fields() -> None:
    for extradata in (
        None,
        b"",
        b"\1",
        b"\1\x64\0\x0a\xff\xe1\0\x04\x67\x64\0\x0a",
        b"\0\0\1\x67\xff",
    ):
        assert not only_frames(extradata)


def test_what_the_demuxer_finds_instead_is_not_believed(
    tmp_path: Path, encode: Callable[..., Path], entered: list[bool]
) -> None:
    """A table that does not fit the frames leads back to the beginning."""
    path = encode(tmp_path / "a.mp4", "libx264", STAMPS, bf="2")
    with open_reader(path) as reader:
        whole = list(reader)
    table = packet_table(str(path))
    table.stamps[79] += 1
    with open_reader(path, 81) as reader:
        assert all(map(torch.equal, reader, whole[81:]))
    assert entered == [False]
