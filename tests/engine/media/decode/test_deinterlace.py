"""Interlaced frames become progressive ones, one for one; progressive ones stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dtg_restore.engine.errors import InputError
from dtg_restore.engine.media import open_reader
from dtg_restore.engine.media.decode.deinterlace import deinterlaced

HEIGHT, WIDTH = 48, 64


def picture(time: float) -> np.ndarray:
    """Grey (H, W) uint8: waves that move 4 pixels a frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wave = np.sin((x - 4 * time) / 5) + np.sin((y + x / 3 + 2 * time) / 6)
    return np.round(120 + 45 * wave).astype(np.uint8)


def woven(number: int) -> np.ndarray:
    """Even lines of one moment, odd ones of half a frame later."""
    fields = picture(number)
    fields[1::2] = picture(number + 0.5)[1::2]
    return fields


def frames(flags: list[bool], pix_fmt: str = "gray") -> list[tuple[int, av.VideoFrame]]:
    """Numbered frames, of which some hold two fields and say so."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format="gray", time_base=Fraction(1, 25))
    flag = graph.add("setfield", "mode=tff")
    source.link_to(flag)
    flag.link_to(graph.add("buffersink"))
    graph.configure()
    made = []
    for number, interlaced in enumerate(flags):
        pixels = woven(number) if interlaced else picture(number)
        frame = av.VideoFrame.from_ndarray(pixels, format="gray")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        if interlaced:
            graph.push(frame)
            frame = graph.pull()
        assert frame.interlaced_frame == interlaced
        made.append((number, frame if pix_fmt == "gray" else frame.reformat(format=pix_fmt)))
    return made


def grey(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="gray")


def test_fields_are_separated() -> None:
    shown = list(deinterlaced(frames([True] * 8)))
    assert [number for number, _ in shown] == list(range(8))
    assert [frame.pts for _, frame in shown] == list(range(8))
    assert {frame.time_base for _, frame in shown} == {Fraction(1, 25)}
    for number, frame in shown:
        assert not frame.interlaced_frame
        assert np.array_equal(grey(frame)[::2], picture(number)[::2])
        error = np.abs(grey(frame).astype(int) - picture(number))[4:-4, 4:-4].mean()
        comb = np.abs(woven(number).astype(int) - picture(number))[4:-4, 4:-4].mean()
        assert error < 0.15 * comb


@pytest.mark.parametrize("flags", ["ppiiippiip", "iip", "pi", "i", "pip", "ppp"])
def test_runs(flags: str) -> None:
    """Progressive frames are the very objects; every frame has its number, time and size."""
    given = frames([flag == "i" for flag in flags])
    shown = list(deinterlaced(given))
    assert [number for number, _ in shown] == list(range(len(flags)))
    for flag, (number, frame), (_, original) in zip(flags, shown, given, strict=True):
        assert frame.pts == number
        assert (frame is original) == (flag == "p")
        assert (frame.width, frame.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("flags", ["iiiiiiiiii", "ppiiippiii", "iipiippiii"])
def test_frames_do_not_depend_on_the_beginning(flags: str) -> None:
    given = frames([flag == "i" for flag in flags])
    whole = [grey(frame) for _, frame in deinterlaced(given)]
    for start in range(1, len(flags)):
        part = [grey(frame) for _, frame in deinterlaced(given[start - 1 :])][1:]
        assert all(map(np.array_equal, part, whole[start:]))


def test_layout_that_changes() -> None:
    given = frames([True] * 3) + frames([True] * 3, "yuv422p")
    shown = list(deinterlaced(enumerate(frame for _, frame in given)))
    assert [number for number, _ in shown] == list(range(6))
    assert [frame.format.name for _, frame in shown] == ["gray"] * 3 + ["yuv422p"] * 3


def test_layout_that_the_filter_lacks_and_tiny_frames() -> None:
    shown = [grey(frame) for _, frame in deinterlaced(frames([True] * 4, "uyvy422"))]
    assert len(shown) == 4
    tiny = [(0, av.VideoFrame(3, 3, "yuv420p"))]
    assert list(deinterlaced(tiny)) == tiny


@pytest.mark.parametrize("interlaced", [True, False])
def test_reader(
    tmp_path: Path,
    encode: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    interlaced: bool,
) -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"} if interlaced else {}
    stamps = [1000 * i for i in range(9)]
    path = encode(tmp_path / "a.mp4", "libx264", stamps, bf="2", **options)
    with caplog.at_level(logging.WARNING, "dtg_restore"), open_reader(path) as reader:
        shown = list(reader)
    assert len(shown) == 9
    assert len(caplog.records) == interlaced
    if interlaced:
        assert "frame 0 is interlaced and is deinterlaced" in caplog.text
    with open_reader(path, 3, 5) as reader:  # the last one needs the frame behind the range
        assert all((a == b).all() for a, b in zip(reader, shown[3:5], strict=True))


def test_fields_as_pictures_are_refused(tmp_path: Path, encode: Callable[..., Path]) -> None:
    options = {"x265-params": "log-level=none:interlace=tff"}
    path = encode(tmp_path / "a.mkv", "libx265", [0, 1000], **options)
    with pytest.raises(InputError, match="each field as a picture of its own"):
        open_reader(path)
