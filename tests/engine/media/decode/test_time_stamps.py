"""Constant and variable frame rates: rates, counts, times and durations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import pytest

from dtg_restore.engine.media import open_reader, probe
from dtg_restore.engine.media.decode import time_stamps
from dtg_restore.engine.media.decode.time_stamps import regular_rate
from dtg_restore.engine.types import FrameNote

NTSC = Fraction(24000, 1001)
MS = Fraction(1, 1000)
REGULAR = [1001 * i for i in range(30)]
VARYING = list(accumulate([1000, 1000, 500, 2000, 1500, 250] * 5, initial=0))
B_FRAMES = {"bf": "2", "preset": "ultrafast"}
FAST = {"deadline": "realtime", "cpu-used": "8"}


def notes_of(path: Path, *span: int) -> list[FrameNote]:
    with open_reader(path, *span) as reader:
        count = len(list(reader))
        return [reader.take_note(reader.start + i) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", B_FRAMES),
        ("a.mkv", "libx264", B_FRAMES),
        ("a.ts", "libx264", B_FRAMES),
        ("a.webm", "libvpx-vp9", FAST),
        ("a.avi", "ffv1", {}),
    ],
)
def test_constant_rate(
    tmp_path: Path, encode: Callable[..., Path], name: str, codec: str, options: dict
) -> None:
    path = encode(tmp_path / name, codec, REGULAR, **options)
    info = probe(path)
    assert (info.fps, info.time_base, info.num_frames) == (NTSC, None, 30)
    notes = notes_of(path)
    assert [note.time for note in notes] == [i / NTSC for i in range(30)]
    assert {note.duration for note in notes} == {1 / NTSC}


@pytest.mark.parametrize(
    ("name", "codec", "unit", "options"),
    [
        ("a.mp4", "libx264", Fraction(1, 24000), B_FRAMES),
        ("a.mov", "prores_ks", Fraction(1, 24000), {}),
        ("a.mkv", "libx264", MS, B_FRAMES),
        ("a.ts", "libx264", Fraction(1, 90000), B_FRAMES),
        ("a.webm", "libvpx-vp9", MS, FAST),
        ("a.avi", "ffv1", Fraction(1, 600), {}),
    ],
)
def test_variable_rate(
    tmp_path: Path,
    encode: Callable[..., Path],
    name: str,
    codec: str,
    unit: Fraction,
    options: dict,
) -> None:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = encode(tmp_path / name, codec, VARYING, pix_fmt=pix_fmt, **options)
    info = probe(path)
    assert (info.time_base, info.num_frames) == (unit, 31)
    notes = notes_of(path)
    for note, stamp in zip(notes, VARYING, strict=True):
        assert abs(note.time - Fraction(stamp, 24000)) <= unit / 2
        assert (note.time / unit).denominator == 1
    for note, following in zip(notes, notes[1:], strict=False):
        assert note.time + note.duration == following.time
    assert notes[-1].duration > 0
    assert abs(31 / info.fps - (notes[-1].time + notes[-1].duration)) < 1e-4
    assert notes_of(path, 7, 12) == notes[7:12]
    with open_reader(path) as reader:
        assert reader.time_of(9) == notes[9].time


def test_index_is_enough_for_a_constant_mp4(
    tmp_path: Path, encode: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was read")

    constant = encode(tmp_path / "a.mp4", "libx264", REGULAR, **B_FRAMES)
    varying = encode(tmp_path / "b.mp4", "libx264", VARYING, **B_FRAMES)
    fragments = encode(
        tmp_path / "c.mp4",
        *("libx264", REGULAR),
        muxer_options={"movflags": "frag_keyframe"},
        **B_FRAMES,
    )
    monkeypatch.setattr(time_stamps, "packet_table", refuse)
    assert probe(constant).num_frames == 30
    for path in (varying, fragments):
        with pytest.raises(AssertionError):
            probe(path)
    monkeypatch.undo()
    assert probe(fragments).num_frames == 30


def test_constant_decoding_times_do_not_hide_a_variable_display(
    tmp_path: Path, encode: Callable[..., Path]
) -> None:
    """Each second frame is shown late; the index of an MP4 lists times of decoding alone."""
    path = tmp_path / "a.mp4"
    source = encode(tmp_path / "b.mp4", "libx264", [1000 * i for i in range(80)], bf="0")
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.pts += 300 * (number % 2)
            packet.stream = stream
            made.mux(packet)
    assert probe(path).time_base == Fraction(1, 24000)
    assert [note.time * 24000 for note in notes_of(path, 0, 4)] == [0, 1300, 2000, 3300]


def test_edit_list_cuts_frames_away(tmp_path: Path, encode: Callable[..., Path]) -> None:
    """Negative time stamps become an edit list: what precedes 0 is decoded and not shown."""
    path = encode(
        tmp_path / "a.mp4", "libx264", [1000 * (i - 5) for i in range(20)], bf="0", preset="fast"
    )
    count = len(notes_of(path))
    assert probe(path).num_frames == count < 20


def test_repeated_stamps_are_told_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        packets = []
        for i in range(9):
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 24)
            packets += stream.encode(frame)
        for packet, stamp in zip(packets, [0, 40, 40, 40, 160, 161, 300, 340, 400], strict=True):
            packet.pts = packet.dts = stamp
            packet.time_base = MS
            container.mux(packet)
    assert probe(path).num_frames == 9
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        notes = notes_of(path)
    assert [note.time / MS for note in notes] == [0, 40, 41, 42, 160, 161, 300, 340, 400]
    assert "same time stamp" in caplog.text
    assert len(caplog.records) == 1


def test_gap_is_told(
    tmp_path: Path, encode: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    stamps = [1000 * (i + 20 * (i > 12)) for i in range(40)]
    path = encode(tmp_path / "a.mkv", "ffv1", stamps)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        notes = notes_of(path)
    assert "frame 12 lasts 0.88 s" in caplog.text
    assert notes[13].time == 1375 * MS


@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (Fraction(25), MS),
        (Fraction(30000, 1001), MS),
        (Fraction(60000, 1001), Fraction(1, 90000)),
        (Fraction(120), MS),
        (Fraction(1000), MS),
        (Fraction(25, 2), Fraction(1, 25)),
        (Fraction(1, 10), MS),
    ],
)
def test_rate_of_rounded_stamps(rate: Fraction, unit: Fraction) -> None:
    stamps = [round(i / rate / unit) for i in range(5000)]
    assert regular_rate(stamps, unit, [Fraction(24)]) == rate
    dropped = stamps[:2000] + stamps[2001:]
    assert regular_rate(dropped, unit, [rate]) is None


def test_tick_as_long_as_a_frame_counts() -> None:
    assert regular_rate([0, 1, 2, 3], Fraction(1, 24), [Fraction(24)]) == 24
    assert regular_rate([0, 1, 2, 4], Fraction(1, 24), [Fraction(24)]) is None
