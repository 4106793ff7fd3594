"""Videos written in parts: the same bytes in one process and in several, times kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
import torch

from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.media import open_reader, open_writer
from dtg_restore.engine.media.encode.assembly import ClipTimes
from dtg_restore.engine.media.encode.packets import Entry, codec_header
from dtg_restore.engine.types import ColourTags, FrameNote, Part

FPS = Fraction(24)
NUM_FRAMES = 20
ENDS = (6, 7, 13)  # one part of a single frame
TICK = Fraction(1, 90000)
# Every interval is another one.
TIMES = [20 * (i * i + 37 * i) * TICK for i in range(NUM_FRAMES + 1)]

PLACES = [
    ("h264", "a.mp4"),
    ("h264", "a.mkv"),
    ("hevc", "a.mov"),
    ("hevc", "a.mkv"),
    ("av1", "a.webm"),
    ("av1", "a.mp4"),
    ("prores", "a.mov"),
    ("ffv1", "a.mkv"),
    ("ffv1", "a.avi"),
]


def clip() -> list[torch.Tensor]:
    """A texture that moves, and turns over at a cut."""
    noise = torch.rand(1, 3, 32, 80, generator=torch.Generator().manual_seed(1))
    texture = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[0] * 0.8 + 0.1
    frames = [texture[:, :, i : i + 48] for i in range(NUM_FRAMES)]
    return frames[:13] + [frame.flip(1) for frame in frames[13:]]


def write(
    path: Path,
    workspace: Path | None = None,
    stop: int | None = None,
    finished: Sequence[Part] = (),
    ends: Sequence[int] = ENDS,
    **settings: object,
) -> list[Part]:
    """Write what is missing behind `finished`; give up before frame `stop`."""
    settings = {"fps": FPS, "colour": ColourTags("bt709"), **settings}
    writer = open_writer(
        path, width=48, height=32, workspace=workspace, finished=finished, **settings
    )
    for i, frame in list(enumerate(clip()))[writer.num_frames :]:
        if i in ends:
            writer.end_part()
        if i == stop:
            writer.abort()
            return writer.parts
        writer.write(frame, FrameNote(i, TIMES[i] + 3, TIMES[i + 1] - TIMES[i]))
    writer.commit()
    return writer.parts


def video_packets(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(("codec", "name"), PLACES)
def test_two_processes_give_the_bytes_of_one(tmp_path: Path, codec: str, name: str) -> None:
    workspace = tmp_path / "parts"
    workspace.mkdir()
    write(tmp_path / name, codec=codec)
    finished = write(tmp_path / f"b{name}", workspace, stop=15, codec=codec)
    assert [(part.start, part.stop) for part in finished] == [(0, 6), (6, 7), (7, 13)]
    names = [name for part in finished for name, _ in part.files]
    assert sorted(file.name for file in workspace.iterdir()) == names
    write(tmp_path / f"b{name}", workspace, finished=finished, codec=codec)
    assert (tmp_path / f"b{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"b{name}", "parts"])


@pytest.mark.parametrize(("codec", "name"), PLACES)
def test_parts_begin_with_key_frames_and_hold_every_frame(
    tmp_path: Path, codec: str, name: str
) -> None:
    write(tmp_path / name, codec=codec)
    found = sorted(video_packets(tmp_path / name), key=lambda packet: packet.pts)
    keys = {i for i, packet in enumerate(found) if packet.is_keyframe}
    assert keys >= {0, *ENDS}
    with open_reader(tmp_path / name) as reader:
        errors = [(a - b).abs().mean() for a, b in zip(reader, clip(), strict=True)]
    assert max(errors) < 0.02


@pytest.mark.parametrize(("codec", "name"), [p for p in PLACES if p[1] != "a.avi"])
@pytest.mark.parametrize("ends", [ENDS, ()])
def test_variable_rate_is_kept(
    tmp_path: Path, codec: str, name: str, ends: tuple[int, ...]
) -> None:
    path = tmp_path / name
    write(path, codec=codec, time_base=TICK, ends=ends)
    found = video_packets(path)
    tick = found[0].time_base
    precision = Fraction(1, 2000) if name.endswith(("mkv", "webm")) else 0  # they hold milliseconds
    shown = sorted(packet.pts * tick for packet in found)
    assert all(abs(a - b) <= precision for a, b in zip(shown, TIMES, strict=False))
    decoded = [packet.dts for packet in found if packet.dts is not None]
    assert all(a < b for a, b in pairwise(decoded))
    with av.open(str(path)) as container:
        seconds = Fraction(container.duration, av.time_base)
    assert abs(seconds - TIMES[-1]) <= max(2 * precision, Fraction(1, av.time_base))


def test_avi_has_a_constant_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.avi", codec="ffv1", time_base=TICK)
    assert [packet.pts for packet in video_packets(tmp_path / "a.avi")] == list(range(NUM_FRAMES))
    assert caplog.text.count("no place for the times of the frames: dropped") == 1


def test_times_must_rise_and_be_there(tmp_path: Path) -> None:
    settings = {"width": 48, "height": 32, "fps": FPS, "colour": ColourTags("bt709")}
    frame = clip()[0]
    with (
        pytest.raises(InputError, match="frame 1 of .* is not shown after frame 0"),
        open_writer(tmp_path / "a.mp4", time_base=TICK, **settings) as writer,
    ):
        for i in range(2):
            writer.write(frame, FrameNote(i, Fraction(1), Fraction(1, 24)))
    with (
        pytest.raises(ConfigError, match="times of its frames"),
        open_writer(tmp_path / "a.mp4", time_base=TICK, **settings) as writer,
    ):
        writer.write(frame)


@pytest.mark.parametrize("fps", [Fraction(1000), Fraction(24000, 1001), Fraction(1, 7)])
@pytest.mark.parametrize(
    ("codec", "name"), [("av1", "a.mp4"), ("hevc", "a.mov"), ("h264", "a.mp4")]
)
def test_rates_of_any_size(tmp_path: Path, codec: str, name: str, fps: Fraction) -> None:
    write(tmp_path / name, codec=codec, fps=fps)
    with open_reader(tmp_path / name) as reader:
        assert reader.info.fps == fps
    shown = sorted(packet.pts * packet.time_base for packet in video_packets(tmp_path / name))
    assert shown == [i / fps for i in range(NUM_FRAMES)]


def test_a_part_of_another_encoder_is_refused(tmp_path: Path) -> None:
    finished = write(tmp_path / "a.mp4", tmp_path, stop=15, crf=20)
    with pytest.raises(EngineError, match="another version or setting of the encoder"):
        write(tmp_path / "a.mp4", tmp_path, finished=finished, codec="hevc")
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("damage", ["gone", "short", "foreign", "inner"])
def test_damaged_parts_are_found(tmp_path: Path, damage: str) -> None:
    finished = write(tmp_path / "a.mp4", tmp_path, stop=15)
    file = tmp_path / finished[1].files[0][0]
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        file.write_bytes(content[:-1])
    elif damage == "foreign":
        file.write_bytes(bytes(len(content)))
    else:  # the length of its only packet
        at = 12 + len(codec_header(file)) + 17
        file.write_bytes(content[:at] + b"\xff\xff\xff\x00" + content[at + 4 :])
    with pytest.raises(EngineError, match=str(file)):
        write(tmp_path / "a.mp4", tmp_path, finished=finished)
    assert not (tmp_path / "a.mp4").exists()


def test_full_disk_leaves_the_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "b.mp4")
    calls = []

    def sometimes_no_space(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:  # a file and its folder for each of two parts
            raise OSError(28, "No space left on device")

    workspace = tmp_path / "parts"
    workspace.mkdir()
    settings = {"width": 48, "height": 32, "fps": FPS, "colour": ColourTags("bt709")}
    writer = open_writer(tmp_path / "a.mp4", workspace=workspace, **settings)
    monkeypatch.setattr("dtg_restore.engine.media.atomic.os.fsync", sometimes_no_space)
    with pytest.raises(InputError, match="No space left"), writer:
        for i, frame in enumerate(clip()):
            if i in ENDS:
                writer.end_part()
            writer.write(frame)
    assert [(part.start, part.stop) for part in writer.parts] == [(0, 6), (6, 7)]
    assert len(os.listdir(workspace)) == 2
    write(tmp_path / "a.mp4", workspace, finished=writer.parts)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("decoded", "expected"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([0, 2, 1, 4, 3], [-1, 0, 1, 2, 3]),
        ([0, 8, 4, 2, 6, 10], [-4, -2, 0, 2, 4, 6]),
        ([100, 107, 103, 108], [-1, 0, 3, 7]),
    ],
)
def test_decoding_times(decoded: list[int], expected: list[int]) -> None:
    times = ClipTimes(Entry(pts, 5, True, 1) for pts in decoded)
    found = [times.of(i, pts) for i, pts in enumerate(decoded)]
    assert [dts for _, dts, _ in found] == expected
    assert [pts for pts, _, _ in found] == [pts - min(decoded) for pts in decoded]
    assert all(dts <= pts for pts, dts, _ in found)
    # as long in the order of decoding as it is shown
    assert found[-1][1] + found[-1][2] - found[0][1] == max(decoded) + 5 - min(decoded)


@pytest.mark.parametrize(("source", "target"), [("a.mp4", "b.mov"), ("a.mkv", "b.mkv")])
@pytest.mark.parametrize("start", [0, 9])
def test_times_of_a_source_reach_the_target(
    tmp_path: Path, source: str, target: str, start: int
) -> None:
    write(tmp_path / source, time_base=TICK)
    shown = sorted(packet.pts * packet.time_base for packet in video_packets(tmp_path / source))
    with open_reader(tmp_path / source, start) as reader:
        info = reader.info
        assert info.time_base is not None
        settings = {"width": 48, "height": 32, "fps": info.fps, "colour": info.colour}
        with open_writer(tmp_path / target, time_base=info.time_base, **settings) as writer:
            for i, frame in enumerate(reader, start):
                writer.write(frame, reader.take_note(i))
    found = sorted(packet.pts * packet.time_base for packet in video_packets(tmp_path / target))
    assert found == [time - shown[start] for time in shown[start:]]
    with av.open(str(tmp_path / target)) as container:
        seconds = Fraction(container.duration, av.time_base)
    assert abs(seconds - (TIMES[-1] - TIMES[start])) <= Fraction(1, 900)
