"""Video files: counts, ranges, precision, sizes, atomic writes, audio."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.media import open_reader, open_writer, probe
from dtg_restore.engine.types import ColourTags

TAGS = ColourTags("bt601")
FPS = Fraction(24)


def moving(num_frames: int, height: int = 32, width: int = 64) -> list[torch.Tensor]:
    """Smooth frames with 8-bit values; the mean of frame i is known and grows with i."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 6, width), indexing="ij")
    pattern = torch.stack((x.sin(), y.cos(), (x + y).sin())) * 20
    return [((pattern + 60 + 5 * i).round() / 255) for i in range(num_frames)]


def write(path: Path, frames: list[torch.Tensor], **settings: object) -> Path:
    height, width = frames[0].shape[1:]
    settings = {"fps": FPS, "colour": TAGS, **settings}
    with open_writer(path, width=width, height=height, **settings) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def read(path: Path, *span: int) -> list[torch.Tensor]:
    with open_reader(path, *span) as reader:
        return list(reader)


def number_of(frame: torch.Tensor, frames: list[torch.Tensor]) -> int:
    return min(range(len(frames)), key=lambda i: float((frames[i] - frame).abs().mean()))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "h264"),
        ("a.mkv", "hevc"),
        ("a.webm", "av1"),
        ("a.mov", "prores"),
        ("a.avi", "ffv1"),
    ],
)
def test_every_frame_comes_back_in_order(tmp_path: Path, name: str, codec: str) -> None:
    frames = moving(17)  # more than the encoders' and decoders' delays
    path = write(tmp_path / name, frames, codec=codec)
    back = read(path)
    assert [number_of(frame, frames) for frame in back] == list(range(17))
    info = probe(path)
    assert (info.width, info.height, info.fps, info.kind) == (64, 32, FPS, "video")
    assert info.bit_depth == (10 if codec == "prores" else 8)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 9), (16, 17), (3, None), (10, 400)])
def test_range_is_exact(tmp_path: Path, start: int, stop: int | None) -> None:
    frames = moving(17)
    path = write(tmp_path / "a.mp4", frames)
    whole = read(path)
    part = read(path, start, stop)
    assert len(part) == len(whole[start:stop])
    assert all(torch.equal(a, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_bad_ranges(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(4))
    with pytest.raises(InputError, match="ends before frame 4"):
        read(path, 4)
    for span in ((2, 2), (3, 1), (-1, 2)):
        with pytest.raises(ConfigError):
            open_reader(path, *span)


@pytest.mark.parametrize(("bits", "name"), [(8, "a.mkv"), (10, "a.avi"), (16, "a.mkv")])
def test_ffv1_is_lossless(tmp_path: Path, bits: int, name: str) -> None:
    peak = 2**bits - 1
    generator = torch.Generator().manual_seed(bits)
    codes = [torch.randint(0, peak + 1, (3, 19, 35), generator=generator) for _ in range(3)]
    frames = [code / peak for code in codes]
    path = write(tmp_path / name, frames, codec="ffv1", bit_depth=bits)
    for code, frame in zip(codes, read(path), strict=True):
        assert torch.equal((frame * peak).round().long(), code)


def test_ten_bit_source_keeps_its_steps(tmp_path: Path) -> None:
    ramp = torch.linspace(0.4, 0.6, 64)[None, None, :].expand(3, 32, 64)
    back = read(write(tmp_path / "a.mp4", [ramp], bit_depth=10, crf=1))[0]
    assert (back - ramp).abs().max() < 0.5 / 255
    assert len(back[0, 0].unique()) > 52  # 8 bits have 45 limited-range codes there


@pytest.mark.parametrize("size", [(3, 3), (1, 1), (17, 33), (33, 64), (32, 65)])
@pytest.mark.parametrize(("codec", "name"), [("h264", "a.mp4"), ("prores", "a.mov")])
def test_odd_and_tiny_sizes(tmp_path: Path, size: tuple[int, int], codec: str, name: str) -> None:
    frames = moving(1, *size)
    back = read(write(tmp_path / name, frames, codec=codec))
    assert back[0].shape == (3, *size)
    assert (back[0] - frames[0]).abs().max() < 14 / 255


@pytest.mark.parametrize(
    ("codec", "name"), [("h264", "a.mp4"), ("hevc", "a.mkv"), ("ffv1", "a.mkv")]
)
def test_same_frames_give_same_bytes(tmp_path: Path, codec: str, name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    texture = torch.rand(3, 128, 192 + 40, generator=generator) * 0.4 + 0.3
    frames = [texture[:, :, i : i + 192] for i in range(12)]
    first = write(tmp_path / name, frames, codec=codec).read_bytes()
    second = write(tmp_path / ("b" + name), frames, codec=codec).read_bytes()
    assert first == second


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a.webm", {"codec": "prores"}, ".mov, .mkv"),
        ("a.mp4", {"codec": "ffv1"}, "h264, hevc, vp9, av1"),
        ("a.xyz", {}, ".mp4, .m4v, .mov"),
        ("a.mp4", {"codec": "divx"}, "known: h264, hevc"),
        ("a.mp4", {"crf": 52}, "0..51"),
        ("a.mkv", {"codec": "ffv1", "crf": 10}, "lossless"),
        ("a.mp4", {"codec": "av1", "width": 65}, "even"),
        ("a.mp4", {"codec": "hevc", "height": 8}, "16x16"),
        ("a.mp4", {"width": 0}, "not positive"),
        ("a.png", {}, "a_%04d.png"),
        ("a_%04d.bmp", {}, "written as .png"),
    ],
)
def test_impossible_settings(tmp_path: Path, name: str, settings: dict, message: str) -> None:
    settings = {"width": 64, "height": 64, "fps": FPS, "colour": TAGS, **settings}
    with pytest.raises(ConfigError) as caught:
        open_writer(tmp_path / name, **settings)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    with (
        pytest.raises(RuntimeError, match="stop"),
        open_writer(target, width=64, height=32, fps=FPS, colour=TAGS) as writer,
    ):
        writer.write(moving(1)[0])
        assert not target.exists()
        assert len(list(tmp_path.iterdir())) == 1
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_failed_overwrite_keeps_the_old_file(tmp_path: Path) -> None:
    target = write(tmp_path / "a.mp4", moving(2))
    old = target.read_bytes()
    with pytest.raises(InputError, match="exists"):
        write(target, moving(3))
    for value in ("nan", "inf", "-inf"):
        frame = moving(1)[0].clone()
        frame[1, 7, 5] = float(value)
        with pytest.raises(EngineError, match="frame 0 .* NaN or infinity"):
            write(target, [frame], overwrite=True)
    with pytest.raises(InputError, match="no frames"):
        open_writer(target, width=64, height=32, fps=FPS, colour=TAGS, overwrite=True).__exit__(
            None, None, None
        )
    assert target.read_bytes() == old
    assert list(tmp_path.iterdir()) == [target]
    write(target, moving(3), overwrite=True)
    assert len(read(target)) == 3


def test_clip_may_replace_itself(tmp_path: Path) -> None:
    target = write(tmp_path / "a.mkv", moving(5), codec="ffv1")
    settings = {"fps": FPS, "colour": TAGS, "codec": "ffv1", "overwrite": True}
    with (
        open_reader(target) as reader,
        open_writer(target, width=64, height=32, carry_from=target, **settings) as writer,
    ):
        for frame in reader:
            writer.write(1 - frame)
    expected = 1 - moving(1)[0]
    assert (read(target)[0] - expected).abs().max() < 1e-6


def test_wrong_frame_shape(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shape"):
        write(tmp_path / "a.mp4", [moving(1)[0], moving(1, 16, 16)[0]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing/a.mp4", "/proc/a.mp4"])
def test_unwritable_targets(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / name, moving(1))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dtg_restore.engine.media.atomic.os.fsync", no_space)
    with pytest.raises(InputError, match="No space left"):
        write(tmp_path / "a.mp4", moving(1))
    assert list(tmp_path.iterdir()) == []


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Patch the track header of an MP4: what cameras write that are held sideways."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    unit = 1 << 16
    content[at : at + 36] = struct.pack(
        ">9i", a * unit, b * unit, 0, c * unit, d * unit, 0, 0, 0, 1 << 30
    )
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: x.rot90(-1, (1, 2))),  # a quarter turn clockwise
        ((0, -1, 1, 0), lambda x: x.rot90(1, (1, 2))),
        ((-1, 0, 0, -1), lambda x: x.flip(1, 2)),
        ((-1, 0, 0, 1), lambda x: x.flip(2)),
        ((1, 0, 0, -1), lambda x: x.flip(1)),
        ((0, 1, 1, 0), lambda x: x.transpose(1, 2)),
    ],
)
def test_display_matrix_is_applied(
    tmp_path: Path, matrix: tuple[int, ...], upright: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    path = write(tmp_path / "phone.mp4", moving(1))
    expected = upright(read(path)[0])
    set_display_matrix(path, *matrix)
    with open_reader(path) as reader:
        assert (reader.info.height, reader.info.width) == expected.shape[1:]
        assert torch.equal(next(iter(reader)), expected)


def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(1), pixel_aspect=Fraction(4, 3))
    assert probe(path).pixel_aspect == Fraction(4, 3)


# Damaged and foreign files


def _corrupt(path: Path, what: str) -> Path:
    """Replace a good clip with something else, or with a part of it."""
    whole = path.read_bytes()
    content = {
        "empty": b"",
        "text": b"this is no video\n" * 100,
        "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "noise": np.random.default_rng(0).bytes(5000),
        "header": whole[:40],
        "cut": whole[: len(whole) * 9 // 10],
    }[what]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("what", ["empty", "text", "playlist", "noise", "header", "cut"])
@pytest.mark.parametrize("suffix", [".mp4", ".txt"])
def test_unreadable_files(tmp_path: Path, what: str, suffix: str) -> None:
    path = _corrupt(write(tmp_path / "a.mp4", moving(12)), what)
    path = path.rename(path.with_suffix(suffix))
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_cut_file_still_gives_what_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(30))
    whole = read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut short: frames 0-28"):
        open_reader(path)
    assert all(torch.equal(a, b) for a, b in zip(read(path, 0, 8), whole[:8], strict=True))


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_reader(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="no pictures"):
        open_reader(tmp_path)


def test_change_of_size_in_a_stream(tmp_path: Path) -> None:
    """Two raw H.264 streams in one file, as recorders that switch resolution make them."""
    joined = b""
    for height, width in ((32, 64), (48, 96)):
        path = tmp_path / "part.h264"
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame(width, height, "yuv420p")))
            container.mux(stream.encode(None))
        joined += path.read_bytes()
    path.write_bytes(joined)
    with pytest.raises(InputError, match="frame 3 is 96x48"):
        read(path)


# Audio


def sound(path: Path, codec: str, seconds: float = 1.0, layout: str = "mono") -> Path:
    rate, block = 48000, 1024
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, round(seconds * rate), block):
            tone = np.sin(np.arange(start, start + block) * 0.05)
            if codec == "aac":
                samples, kind = tone[None].astype(np.float32), "fltp"
            else:
                channels = 1 if layout == "mono" else 2
                samples, kind = (tone * 9000).astype(np.int16).repeat(channels)[None], "s16"
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture
def talkie(tmp_path: Path) -> Path:
    """24 frames with one second of AAC."""
    tone = sound(tmp_path / "tone.m4a", "aac")
    return write(tmp_path / "talkie.mp4", moving(24), carry_from=tone)


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
def test_audio_packets_are_copied(tmp_path: Path, talkie: Path, name: str) -> None:
    assert probe(talkie).has_audio
    copy = write(tmp_path / name, moving(24), carry_from=talkie)
    assert packets(copy) == packets(talkie)
    assert len(packets(copy)) > 40


def test_audio_of_consecutive_ranges_is_the_whole(tmp_path: Path, talkie: Path) -> None:
    joined: list[bytes] = []
    for part, (first, last) in enumerate(((0, 7), (7, 20), (20, 24))):
        span = (first / 24, last / 24 if last < 24 else None)
        path = write(
            tmp_path / f"{part}.mp4", moving(last - first), carry_from=talkie, carry_range=span
        )
        joined += packets(path)
        with av.open(str(path)) as container:
            packet = next(p for p in container.demux(audio=0) if p.size)
            assert -0.03 < packet.pts * packet.time_base < 0.03
    assert joined == packets(talkie)


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_audio_that_does_not_fit_is_dropped_once(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    tone = sound(tmp_path / "tone.wav", "pcm_s16le", layout=layout)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        path = write(tmp_path / "a.webm", moving(24), codec="av1", carry_from=tone)
    assert len(caplog.records) == 1
    assert "dropped, as webm cannot hold it: audio track 0 (pcm_s16le)" in caplog.text
    assert not probe(path).has_audio
    assert len(read(path)) == 24


def test_audio_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video"):
        open_reader(sound(tmp_path / "a.m4a", "aac"))


def test_real_clip(shared_data: Path) -> None:
    path = shared_data / "clips" / "pour_coffee_1.mp4"
    with open_reader(path, 20, 24) as reader:
        assert reader.info.has_audio
        assert reader.first_number == 20
        frames = list(reader)
    assert len(frames) == 4
    with av.open(str(path)) as container:
        frame = [f for _, f in zip(range(21), container.decode(video=0), strict=False)][20]
    reference = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1) / 255
    assert (frames[0] - reference).abs().mean() < 1.5 / 255
