"""What a clip holds beside its video: copied packet by packet, moved by the range, or named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dtg_restore.bench.media_streams import jpeg
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.types import ColourTags

MS = Fraction(1, 1000)
FPS = Fraction(24)
FONT = b"no font, but its bytes"


def rich_clip(path: Path, muxer: str, audio: tuple[str, ...], subtitle: str) -> Path:
    """One second of everything: two sound tracks, a subtitle every quarter, two chapters, tags."""
    with av.open(str(path), "w", format=muxer) as container:
        video = container.add_stream("mpeg4", rate=24)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        video.metadata["language"] = "fra"
        tracks = [container.add_stream(codec, rate=48000, layout="mono") for codec in audio]
        for track, language, disposition in zip(tracks, ("eng", "jpn"), (1, 8), strict=True):
            track.metadata.update(language=language, title=f"sound in {language}")
            track.disposition = disposition
        text = container.add_mux_stream(subtitle)
        text.time_base, text.disposition = MS, 64
        text.metadata["language"] = "spa"
        if muxer == "matroska":
            container.add_attachment("a.ttf", "application/x-truetype-font", FONT)
            container.add_attachment("cover.jpg", "image/jpeg", jpeg())
        container.metadata.update(title="A title", artist="Somebody", timecode="01:00:00:00")
        container.set_chapters(
            [
                {"id": n + 1, "start": 500 * n, "end": 500 * (n + 1), "time_base": MS}
                | {"metadata": {"title": f"part {n}"}}
                for n in range(2)
            ]
        )
        for number in range(4):
            line = f"line {number}".encode()
            packet = av.Packet(
                len(line).to_bytes(2, "big") + line if subtitle == "mov_text" else line
            )
            packet.stream, packet.time_base, packet.is_keyframe = text, MS, True
            packet.pts = packet.dts = 250 * number
            packet.duration = 200
            container.mux(packet)
        for number in range(24):
            frame = av.VideoFrame(64, 32, "yuv420p")
            frame.pts, frame.time_base = number, 1 / FPS
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track in tracks:
            kind = track.format.name
            silence = np.zeros((1, 1024), np.float32 if kind == "fltp" else np.int16)
            for start in range(0, 48000, 1024):
                sound = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
                sound.sample_rate, sound.pts = 48000, start
                container.mux(track.encode(sound))
            container.mux(track.encode(None))
    return path


@pytest.fixture(scope="module")
def mkv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return rich_clip(folder / "rich.mkv", "matroska", ("aac", "flac"), "subrip")


@pytest.fixture(scope="module")
def mov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return rich_clip(folder / "rich.mov", "mov", ("aac", "pcm_s16le"), "mov_text")


def copy(
    source: Path, target: Path, first: int = 0, stop: int = 24, codec: str = "h264", fps: int = 24
) -> Path:
    whole = (first, stop) == (0, 24)
    span = None if whole else (Fraction(first, fps), Fraction(stop, fps))
    settings = {"fps": Fraction(fps), "colour": ColourTags("bt601"), "codec": codec}
    with open_writer(
        target, width=64, height=32, carry_from=source, carry_range=span, **settings
    ) as writer:
        for _ in range(first, stop):
            writer.write(torch.full((3, 32, 64), 0.5))
    return target


def facts(stream: av.stream.Stream) -> tuple[str, str | None, str | None, int]:
    tags = stream.metadata
    title = tags.get("title", tags.get("name"))
    return stream.type, tags.get("language"), title, int(stream.disposition)


def chapters(container: av.container.InputContainer) -> list[tuple[Fraction, Fraction, str]]:
    return [
        (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
        for c in container.chapters()
    ]


def packets(path: Path, kind: str) -> Iterator[tuple[Fraction, Fraction, bytes]]:
    """(start, length, content) of the packets of all tracks of a kind; not the gaps of MOV."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        for packet in container.demux(streams):
            if packet.size and bytes(packet) != bytes(2):
                unit = packet.time_base
                yield packet.pts * unit, (packet.duration or 0) * unit, bytes(packet)


def content(path: Path, kind: str) -> list[bytes]:
    return sorted(data for _, _, data in packets(path, kind))


@pytest.mark.parametrize("name", ["mkv", "mov"])
def test_everything_is_carried_over(
    tmp_path: Path, name: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    source = request.getfixturevalue(name)
    target = copy(source, tmp_path / f"a.{name}")
    assert caplog.records == []
    for kind in ("audio", "subtitle"):
        assert content(target, kind) == content(source, kind)
    assert len(content(target, "audio")) > 50
    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert [facts(s) for s in after.streams] == [facts(s) for s in before.streams]
        assert chapters(after) == chapters(before)
        lower = {k.lower(): v for k, v in after.metadata.items()}
        assert lower["title"] == "A title"
        assert lower["artist"] == "Somebody"
        held = [after.metadata, *(s.metadata for s in after.streams)]
        assert any(
            {k.lower(): v for k, v in tags.items()}.get("timecode") == "01:00:00:00"
            for tags in held
        )


def test_gaps_between_subtitles_do_not_grow(tmp_path: Path, mov: Path) -> None:
    """The MOV muxer writes an empty text behind each; a copy of a copy has as many."""
    counts = []
    for path in (mov, copy(mov, tmp_path / "a.mov")):
        with av.open(str(path)) as container:
            counts.append(sum(p.size > 0 for p in container.demux(container.streams.subtitles)))
    assert counts[0] == counts[1]


def test_attachments_are_the_same_bytes(tmp_path: Path, mkv: Path) -> None:
    with av.open(str(copy(mkv, tmp_path / "a.mkv"))) as container:
        [font] = container.streams.attachments
        assert (font.name, font.data) == ("a.ttf", FONT)
        [cover] = [s for s in container.streams.video if s.disposition & 1024]
        assert cover.metadata["mimetype"] == "image/jpeg"
        assert bytes(next(container.demux(cover))) == jpeg()


def test_mov_has_one_code_a_language(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        track = container.add_mux_stream("pcm_s16le", rate=8000)
        track.time_base, track.metadata["language"] = MS, "deu"
        packet = av.Packet(bytes(160))
        packet.stream, packet.time_base, packet.is_keyframe = track, MS, True
        packet.pts = packet.dts = 0
        container.mux(packet)
    with av.open(str(copy(source, tmp_path / "a.mov"))) as container:
        assert container.streams.audio[0].language == "ger"


def test_cover_goes_into_mp4_and_back(tmp_path: Path, mkv: Path) -> None:
    mp4 = copy(mkv, tmp_path / "a.mp4")
    back = copy(mp4, tmp_path / "b.mkv")
    for path in (mp4, back):
        with av.open(str(path)) as container:
            [cover] = [s for s in container.streams.video if s.disposition & 1024]
            assert bytes(next(container.demux(cover))) == jpeg()


def test_range_moves_everything(tmp_path: Path, mkv: Path) -> None:
    """Frames 8 to 15: a third to two thirds of a second."""
    target = copy(mkv, tmp_path / "a.mkv", 8, 16)
    first, second = packets(target, "subtitle")
    # Line 1 is shown from 0.25 to 0.45 s, line 2 from 0.5 to 0.7 s; ticks are milliseconds.
    assert (first[2], second[2]) == (b"line 1", b"line 2")
    assert first[:2] == pytest.approx((0, 0.45 - 1 / 3), abs=2e-3)
    assert second[:2] == pytest.approx((0.5 - 1 / 3, 2 / 3 - 0.5), abs=2e-3)
    assert all(-0.001 <= start < 1 / 3 for start, _, _ in packets(target, "audio"))
    with av.open(str(target)) as container:
        spans = chapters(container)
        assert container.metadata["TIMECODE"] == "01:00:00:08"
    assert [title for _, _, title in spans] == ["part 0", "part 1"]
    assert [t for span in spans for t in span[:2]] == pytest.approx(
        (0, 1 / 6, 1 / 6, 1 / 3), abs=2e-3
    )


def first_frame(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        packet = next(container.demux(container.streams.video[0]))
        assert packet.pts is not None
        return packet.pts * packet.time_base


def trimmed(source: Path, target: Path, hidden: Fraction) -> Path:
    """`source` with its sound moved ahead; an edit list hides what precedes the first frame."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as container:
        streams = (clip.streams.video[0], clip.streams.audio[0])
        copies = {s.index: container.add_stream_from_template(s) for s in streams}
        for packet in clip.demux(streams):
            if packet.size and packet.pts is not None and packet.dts is not None:
                is_sound = packet.stream.type == "audio"
                shift = round(hidden / packet.time_base) if is_sound else 0
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    return target


def test_chapters_stay_with_the_frames(tmp_path: Path, mov: Path) -> None:
    """Matroska begins with the sound that leads a decoder in, and the frames come later."""
    target = copy(mov, tmp_path / "a.mkv")
    assert first_frame(target) > first_frame(mov) == 0
    with av.open(str(mov)) as before, av.open(str(target)) as after:
        moved = [
            (a - first_frame(target), b - first_frame(target), t) for a, b, t in chapters(after)
        ]
        assert moved == chapters(before)


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_sound_that_was_cut_away_stays_away(tmp_path: Path, mov: Path, name: str) -> None:
    source = trimmed(mov, tmp_path / "source.mov", Fraction(1, 2))
    target = copy(source, tmp_path / name)
    starts = [start - first_frame(target) for start, _, _ in packets(target, "audio")]
    assert -0.1 <= min(starts) < 0  # what the decoder is led in with


def late_video(source: Path, target: Path) -> Path:
    """`source` with its sound half a second ahead, all of which is heard."""
    with av.open(str(source)) as clip, av.open(str(target), "w", format="matroska") as container:
        streams = (clip.streams.video[0], clip.streams.audio[0])
        copies = {s.index: container.add_stream_from_template(s) for s in streams}
        for packet in clip.demux(streams):
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = round(Fraction(packet.stream.type == "video", 2) / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    return target


def test_avi_keeps_the_rate_beside_early_sound(
    tmp_path: Path, mov: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for source in (mov, late_video(mov, tmp_path / "late.mkv")):
        target = copy(source, tmp_path / f"{source.stem}.avi", codec="ffv1")
        with av.open(str(target)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        assert times == pytest.approx([i / 24 for i in range(24)])
        is_late = source.stem == "late"
        assert ("what starts before the first frame" in caplog.text) == is_late


def test_consecutive_ranges_share_no_sound(tmp_path: Path, mkv: Path) -> None:
    parts = [
        copy(mkv, tmp_path / f"{first}.mkv", first, stop)
        for first, stop in ((0, 7), (7, 20), (20, 24))
    ]
    joined = [data for part in parts for data in content(part, "audio")]
    assert len(joined) >= len(content(mkv, "audio")) - 2  # the last range ends with the video
    assert len([d for d in joined if d in set(content(mkv, "audio"))]) == len(joined)


@pytest.mark.parametrize(
    ("name", "codec", "lost"),
    [
        ("a.mp4", "h264", ("subtitle track 3 (srt, spa)", "attachment a.ttf")),
        ("a.webm", "av1", ("audio track 1 (aac, eng)", "audio track 2 (flac, jpn)", "cover")),
        ("a.avi", "ffv1", ("subtitle track 3 (srt, spa)", "2 chapters")),
    ],
)
def test_what_is_lost_is_named_once(
    tmp_path: Path,
    mkv: Path,
    name: str,
    codec: str,
    lost: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        target = copy(mkv, tmp_path / name, codec=codec)
    [record] = caplog.records
    assert all(item in record.message for item in lost)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.name != ""


def test_time_code_at_a_rate_without_any(
    tmp_path: Path, mkv: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """1000 frames/s: the MP4 muxer would refuse the whole file."""
    fast = tmp_path / "fast.mkv"
    with av.open(str(fast), "w") as container:
        video = container.add_stream("ffv1", rate=1000)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        container.metadata.update(title="A title", timecode="01:00:00:00")
        for number in range(2):
            frame = av.VideoFrame(64, 32, "yuv420p")
            frame.pts, frame.time_base = number, MS
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        target = copy(fast, tmp_path / "a.mp4", fps=1000)
    assert "tag timecode" in caplog.text
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "A title"


def test_broken_sound_does_not_cost_the_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MP4 takes the header off every packet of a transport stream's AAC; one is damaged here."""
    raw, source = tmp_path / "a.aac", tmp_path / "a.nut"
    with av.open(str(raw), "w", format="adts") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        sound.sample_rate = 48000
        container.mux(track.encode(sound))
        container.mux(track.encode(None))
    with av.open(str(raw)) as container, av.open(str(source), "w", format="nut") as copied:
        track = copied.add_stream_from_template(container.streams.audio[0])
        for number, packet in enumerate(p for p in container.demux() if p.size):
            packet.stream = track
            if number == 20:
                broken = av.Packet(bytes(packet.size))
                broken.stream, broken.time_base, broken.is_keyframe = track, packet.time_base, True
                broken.pts, broken.dts = packet.pts, packet.dts
                packet = broken
            copied.mux(packet)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        target = copy(source, tmp_path / "a.mp4")
    [record] = caplog.records
    assert "mp4 takes not all of track 0" in record.message
    with av.open(str(target)) as container:
        assert sum(p.size > 0 for p in container.demux(video=0)) == 24
    assert len(content(target, "audio")) >= 40


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_sound_goes_on_where_recordings_were_joined(tmp_path: Path, name: str) -> None:
    """Two transport streams of 1.5 s, one behind the other: all times begin anew."""
    source = tmp_path / "a.ts"
    with av.open(str(source), "w") as container:
        video = container.add_stream("mpeg2video", rate=24)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        track = container.add_stream("mp2", rate=48000, layout="mono")
        for number in range(36):
            frame = av.VideoFrame(64, 32, "yuv420p")
            frame.pts, frame.time_base = number, 1 / FPS
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 72000), np.int16), "s16", "mono")
        sound.sample_rate, sound.pts = 48000, 0
        container.mux(track.encode(sound))
        container.mux(track.encode(None))
    once = len(content(source, "audio"))
    source.write_bytes(source.read_bytes() * 2)
    target = copy(source, tmp_path / name, 0, 72)
    times = [start for start, _, _ in packets(target, "audio")]
    assert len(times) == 2 * once
    assert 0.02 < min(b - a for a, b in pairwise(times)) < 0.03  # 1152 samples, 24 ms
    assert times[-1] - first_frame(target) == pytest.approx(3, abs=0.1)


def test_equal_time_stamps_are_pushed_on(tmp_path: Path) -> None:
    """Matroska's milliseconds give short packets the same time; MOV takes none twice."""
    source = tmp_path / "a.mkv"
    times = [0, 10, 10, 10, 20]
    with av.open(str(source), "w") as container:
        track = container.add_mux_stream("pcm_s16le", rate=8000)
        track.time_base = MS
        for pts in times:
            packet = av.Packet(bytes(160))
            packet.stream, packet.time_base, packet.is_keyframe = track, MS, True
            packet.pts = packet.dts = pts
            container.mux(packet)
    target = copy(source, tmp_path / "a.mov")
    assert b"".join(content(target, "audio")) == bytes(160 * len(times))


def test_tags_in_another_encoding(tmp_path: Path) -> None:
    source = tmp_path / "a.avi"
    with av.open(str(source), "w", metadata_encoding="latin-1") as container:
        video = container.add_stream("mpeg4", rate=24)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        container.metadata["title"] = "caf\xe9"
        container.mux(video.encode(av.VideoFrame(64, 32, "yuv420p")))
        container.mux(video.encode(None))
    with av.open(str(copy(source, tmp_path / "a.mkv"))) as container:
        assert container.metadata["title"] == "caf\N{REPLACEMENT CHARACTER}"
