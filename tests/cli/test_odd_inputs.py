"""Odd inputs and outputs: a right result, or the documented code and one line; nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from dtg_restore.engine.media import open_reader, probe

from .conftest import start

FAST = ["--backbone", "none", "--device", "cpu", "--progress", "none"]


def make_video(
    path: Path | str,
    num_frames: int,
    size: tuple[int, int] = (32, 24),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: Fraction | int = 25,
    audio: bool = False,
    **options: str,
) -> None:
    """Moving noise; `options` are the muxer's."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with av.open(str(path), "w", options=options) as container:
        video = None
        if num_frames >= 0:
            video = container.add_stream(codec, rate=fps)
            video.width, video.height, video.pix_fmt = width, height, pix_fmt
        sound = container.add_stream("pcm_s16le", rate=48000) if audio else None
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, i, (0, 1)), "rgb24")
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode(None))
        if sound:
            samples = np.zeros((1, 4800), np.int16)
            heard = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            heard.sample_rate, heard.pts = 48000, 0
            container.mux(sound.encode(heard))
            container.mux(sound.encode(None))


def frames_of(path: Path | str) -> torch.Tensor:
    with open_reader(path) as reader:
        return torch.stack(list(reader))


def seen(folder: Path) -> list[str]:
    """Names that a user sees; what a run keeps to go on from is hidden."""
    return sorted(p.name for p in folder.rglob("*") if not p.name.startswith("."))


def visible(folder: Path) -> dict[str, bytes]:
    """Files under names that a user sees, outside of what a run keeps to go on from."""
    files = (path for path in folder.rglob("*") if path.is_file())
    shown = (p for p in files if not any(part.startswith(".") for part in p.parts[-2:]))
    return {str(path.relative_to(folder)): path.read_bytes() for path in shown}


def is_one_error(err: str) -> bool:
    """One line of an error; what was dropped or damaged may have been said before."""
    *before, last = err.splitlines()
    said = all(line.startswith("dtg-restore: ") and "error:" not in line for line in before)
    return said and last.startswith("dtg-restore: error: ") and "bug" not in err


def _text(path: Path) -> None:
    path.write_text("This is a letter, not a film.\n" * 50)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no pictures here")


def _without_end(path: Path) -> None:
    make_video(path, 9)
    path.write_bytes(path.read_bytes()[:-400])  # an MP4's index is its end


def _header_alone(path: Path) -> None:
    make_video(path, 9, codec="ffv1", pix_fmt="bgr0")
    path.write_bytes(path.read_bytes()[:600])


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


# Name, what makes it, what the line says beside the name.
UNREADABLE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("absent.mp4", lambda path: None, "does not exist"),
    ("absent/%04d.png", lambda path: None, "No such file"),
    ("x" * 300 + ".mp4", lambda path: None, "does not exist"),
    ("empty.mp4", Path.touch, "is empty"),
    ("empty.png", Path.touch, "not a readable picture"),
    ("text.mp4", _text, "not a readable video"),
    ("text.txt", _text, "is not a video"),
    ("text.png", _text, "not a readable picture"),
    ("text.exr", _text, "not a readable picture"),
    ("folder", _folder, "no pictures in"),
    ("folder.mp4", Path.mkdir, "no pictures in"),
    ("loop.mp4", _loop, "does not exist"),
    ("pipe.mp4", os.mkfifo, "does not exist"),
    ("random.mp4", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "damaged"),
    ("sound.mov", lambda path: make_video(path, -1, audio=True), "holds no video"),
    ("sound.mkv", lambda path: make_video(path, -1, audio=True), "holds no video"),
    ("sound.wav", lambda path: make_video(path, -1, audio=True), "holds no video"),
    ("none.mov", lambda path: make_video(path, 0, audio=True), "holds no video"),
    ("none.mkv", lambda path: make_video(path, 0, audio=True), "holds no frames"),
    ("cut.mp4", _without_end, "not a readable video"),
    ("cut.mkv", _header_alone, "holds no frames"),
    ("list.m3u8", lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://a.b/c.ts\n"), "video"),
    ("drawing.svg", lambda path: path.write_text("<svg width='9' height='9'/>"), "video"),
]


@pytest.mark.parametrize(
    ("name", "make", "says"), UNREADABLE, ids=[case[0][:20] for case in UNREADABLE]
)
def test_unreadable(cli, tmp_path: Path, name: str, make: Callable[[Path], Any], says: str) -> None:
    make(tmp_path / name)
    (tmp_path / "o.mkv").write_bytes(b"precious")
    before = sorted(os.listdir(tmp_path))
    for command in (["plan", name], ["restore", name, "o.mkv", "--overwrite", *FAST[2:]]):
        result = cli(*command, "--backbone", "none")
        assert (result.code, result.out) == (3, "")
        assert is_one_error(result.err) and result.err.count("\n") == 1
        assert name.partition("/")[0] in result.err and says in result.err
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "o.mkv").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "size", [(3, 3), (1, 1), (31, 1), (33, 17)], ids=lambda s: f"{s[0]}x{s[1]}"
)
@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "pictures/"])
def test_sizes(cli, files, tmp_path: Path, size: tuple[int, int], target: str) -> None:
    make_video("in.mkv", 3, size, "ffv1", "bgr0")
    more = ["--codec", "ffv1"] if target == "o.mkv" else []
    result = cli("restore", "in.mkv", target, *files.quick, *more)
    assert (result.code, result.err) == (0, "")
    assert frames_of(target).shape == (3, 3, 2 * size[1], 2 * size[0])


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "prores", "ffv1"])
def test_every_codec_takes_three_pixels_or_says_why_not(cli, tmp_path: Path, codec: str) -> None:
    make_video("in.mkv", 2, (3, 3), "ffv1", "bgr0")
    target = "o.mov" if codec == "prores" else "o.mkv"
    result = cli("restore", "in.mkv", target, *FAST, "--codec", codec)
    if codec == "hevc":
        assert result.code == 2 and "hevc takes frames from 16x16 on" in result.err
        assert seen(tmp_path) == ["in.mkv"]
    else:
        assert result.code == 0 and frames_of(target).shape == (2, 3, 6, 6)


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "pictures"])
@pytest.mark.parametrize("options", [[], ["--frames", "0"], ["--frames", "0-99"]])
def test_one_frame(cli, files, target: str, options: list[str]) -> None:
    make_video("in.mp4", 1)
    assert cli("restore", "in.mp4", target, *files.quick, *options).code == 0
    assert len(frames_of(target)) == 1
    result = cli("restore", "in.mp4", target, *files.quick, "--overwrite", "--frames", "1")
    assert result.code == 3 and "ends before frame 1" in result.err
    assert len(frames_of(target)) == 1  # the old one stays


RATES = [1000, 240, Fraction(60000, 1001), Fraction(24000, 1001), Fraction(1, 10)]


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize(("source", "codec"), [("in.mp4", "libx264"), ("in.mkv", "ffv1")])
def test_rates(cli, rate: Fraction | int, source: str, codec: str) -> None:
    make_video(source, 4, codec=codec, pix_fmt="bgr0" if codec == "ffv1" else "yuv420p", fps=rate)
    for target in ("o.mp4", "o.mkv"):
        result = cli("restore", source, target, *FAST)
        assert (result.code, result.err) == (0, "")
        info = probe(target)
        assert (info.fps, info.time_base, len(frames_of(target))) == (rate, None, 4)


@pytest.mark.parametrize("target", ["o.mp4", "o.mov", "o.mkv"])
def test_one_frame_of_a_thousandth_second(cli, target: str) -> None:
    make_video("in.mkv", 1, codec="ffv1", pix_fmt="bgr0", fps=1000)
    result = cli("restore", "in.mkv", target, *FAST)
    assert (result.code, result.err) == (0, "")
    assert (probe(target).fps, len(frames_of(target))) == (1000, 1)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 0.99])
@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
def test_cut_short(cli, files, tmp_path: Path, source: str, share: float) -> None:
    """What is there comes out as it would have; that it is not all is said."""
    if source == "in.mp4":
        make_video(source, 12, movflags="faststart")
    else:
        make_video(source, 12, codec="ffv1", pix_fmt="bgr0")
    save = ["--codec", "ffv1", *FAST, "--sr", files.sr]
    assert cli("restore", source, "whole.mkv", *save).code == 0
    data = Path(source).read_bytes()
    Path(source).write_bytes(data[: int(len(data) * share)])
    (tmp_path / "o.mkv").write_bytes(b"precious")
    result = cli("restore", source, "o.mkv", *save, "--overwrite")
    if result.code == 3:
        assert is_one_error(result.err) and (tmp_path / "o.mkv").read_bytes() == b"precious"
        assert share < 0.3 or "cut short" in result.err  # in the header, it is no video
        return
    frames, whole = frames_of("o.mkv"), frames_of("whole.mkv")
    assert result.code == 0 and 0 < len(frames) <= 12
    assert len(frames) == 12 or "cut short" in result.err
    assert torch.equal(frames, whole[: len(frames)])


@pytest.mark.parametrize("options", [{}, {"live": "1"}], ids=["", "no sizes"])
@pytest.mark.parametrize("name", ["in.mkv", "in.webm"])
def test_no_word_of_a_whole_file(cli, name: str, options: dict[str, str]) -> None:
    make_video(name, 30, codec="libvpx-vp9", fps=Fraction(30000, 1001), **options)
    result = cli("restore", name, "o.mkv", *FAST)
    assert (result.code, result.err) == (0, "")
    result = cli("plan", name, "--backbone", "none")
    assert (result.code, result.err) == (0, "")


def test_the_last_frames_of_many(cli) -> None:
    """Few of many frames are within what a header's rounding may be."""
    make_video("in.mkv", 120, codec="ffv1", pix_fmt="bgr0")
    Path("in.mkv").write_bytes(Path("in.mkv").read_bytes()[:-12_000])
    result = cli("restore", "in.mkv", "o.mkv", *FAST)
    assert result.code == 0 and 114 < len(frames_of("o.mkv")) < 120
    assert "cut short: it announces 4.8 s" in result.err


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("source", ["in.mp4", "in.mkv", "in.avi"])
def test_damaged_in_the_middle(cli, files, tmp_path: Path, source: str, seed: int) -> None:
    codec = {"in.mp4": "libx264", "in.mkv": "ffv1", "in.avi": "mpeg4"}[source]
    make_video(source, 12, codec=codec, pix_fmt="bgr0" if codec == "ffv1" else "yuv420p")
    random = np.random.default_rng(seed)
    data = bytearray(Path(source).read_bytes())
    where = random.integers(len(data) // 4, len(data) // 2)
    data[where : where + 40] = random.bytes(40)
    Path(source).write_bytes(data)
    (tmp_path / "o.mkv").write_bytes(b"precious")
    result = cli(
        "restore", source, "o.mkv", *FAST, "--sr", files.sr, "--codec", "ffv1", "--overwrite"
    )
    if result.code == 0:
        assert all(line.startswith("dtg-restore: ") for line in result.err.splitlines())
        assert len(frames_of("o.mkv")) > 0
    else:
        assert result.code == 3 and is_one_error(result.err)
        assert (tmp_path / "o.mkv").read_bytes() == b"precious"


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "cut"])
@pytest.mark.parametrize("suffix", ["png", "tif", "exr", "dpx", "jpg"])
def test_damaged_picture_in_a_folder(cli, suffix: str, content: bytes | None) -> None:
    make_video("in.mp4", 3)
    assert cli("restore", "in.mp4", f"p/%d.{suffix}", *FAST).code == 0
    broken = Path(f"p/1.{suffix}")
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 2] if content is None else content)
    result = cli("restore", "p", "o.mkv", *FAST)
    assert result.code == 3 and is_one_error(result.err) and str(broken) in result.err
    assert not Path("o.mkv").exists()


def test_pictures_of_two_sizes(cli) -> None:
    make_video("a.mp4", 2)
    make_video("b.mp4", 1, (40, 24))
    assert cli("restore", "a.mp4", "p/%d.png", *FAST).code == 0
    assert cli("restore", "b.mp4", "p/1.png".replace("1", "%d"), *FAST, "--overwrite").code == 0
    result = cli("restore", "p", "o.mkv", *FAST)
    assert result.code == 3 and is_one_error(result.err) and "p/1.png is 64x48" in result.err


NAMES = ["a b", "Größe 漢", "100%", "a_%d", "new\nline", "pipe:1", "[a]*?", 'it\'s "q"', "a#1?b=c"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names(cli, name: str) -> None:
    make_video("in.mp4", 2)
    os.rename("in.mp4", f"{name}.mp4")
    for source, target in ((f"{name}.mp4", f"o{name}.mkv"), (f"o{name}.mkv", f"p{name}")):
        result = cli("restore", source, target, *FAST, "--report", "r.json")
        assert (result.code, result.err) == (0, "")
        assert len(frames_of(target)) == 2


def test_a_name_that_is_not_unicode(cli) -> None:
    name = os.fsdecode(b"\xff\xfe")
    make_video("in.mp4", 2)
    os.rename("in.mp4", f"{name}.mp4")
    for source, target in ((f"{name}.mp4", f"o{name}.mkv"), (f"o{name}.mkv", f"p{name}")):
        assert cli("restore", source, target, *FAST, "--report", "r.json").code == 0
    assert len(frames_of(f"o{name}.mkv")) == len(os.listdir(f"p{name}")) == 2
    result = cli("restore", f"p{name}", "o.mkv", *FAST)
    assert result.code == 3 and is_one_error(result.err) and "not UTF-8" in result.err


# Outputs, exit code, what the line says.
UNWRITABLE = [
    ("in.mp4/o.mkv", 3, "there is no folder in.mp4"),
    ("absent/o.mkv", 3, "there is no folder absent"),
    ("file/", 3, "cannot write file: Not a directory"),
    ("file/%04d.png", 3, "file/%04d.png: Not a directory"),
    ("/proc/o.mkv", 3, "cannot write /proc/o.mkv"),
    ("/proc/here/", 3, "cannot write /proc/here"),
    ("/dev/null", 3, "cannot write /dev/null"),
    ("o" * 300 + ".mkv", 3, "File name too long"),
    ("p/" + "o" * 300 + "%d.png", 3, "File name too long"),
    ("o.mkv --report " + "r" * 300, 3, "File name too long"),
    ("o.mkv --save-config " + "s" * 300 + ".toml", 3, "File name too long"),
    ("o.mkv --config " + "c" * 300 + ".toml", 2, "File name too long"),
    ("o.mkv --report in.mp4/r.json", 3, "in.mp4/r.json"),
]


@pytest.mark.parametrize(
    ("words", "code", "says"), UNWRITABLE, ids=[case[0][:30] for case in UNWRITABLE]
)
def test_unwritable(cli, tmp_path: Path, words: str, code: int, says: str) -> None:
    make_video("in.mp4", 2)
    Path("file").write_bytes(b"precious")
    before = visible(tmp_path)
    result = cli("restore", "in.mp4", *words.split(), *FAST)
    assert result.code == code and is_one_error(result.err) and says in result.err
    assert visible(tmp_path) == before and not list(tmp_path.glob("*.mkv"))


def _mount(folder: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")


@pytest.fixture
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Mounts a small disk with options of tmpfs."""
    folder = tmp_path_factory.mktemp("disk")
    is_mounted = False

    def mount(*options: str) -> Path:
        nonlocal is_mounted
        _mount(folder, *options)
        is_mounted = True
        return folder

    yield mount
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("target", ["o.mkv", "pictures/", "%04d.png"])
def test_a_disk_that_cannot_be_written(cli, mounted, target: str) -> None:
    make_video("in.mp4", 2)
    disk = mounted("ro")
    result = cli("restore", "in.mp4", f"{disk}/{target}", *FAST)
    assert result.code == 3 and is_one_error(result.err) and "Read-only" in result.err


FULL = [
    ("o.mp4", ["--crf", "0"]),
    ("o.mkv", ["--codec", "ffv1"]),
    ("o.mov", ["--codec", "prores"]),
    *((f"%d.{suffix}", []) for suffix in ("png", "tif", "exr", "dpx", "jpg")),
]


@pytest.mark.parametrize("kilobytes", [8, 200])
@pytest.mark.parametrize(("name", "options"), FULL, ids=[name for name, _ in FULL])
def test_full_disk(
    cli, files, mounted, tmp_path: Path, name: str, options: list[str], kilobytes: int
) -> None:
    """The old file stays, and with more room the same command gives what it would have."""
    make_video("in.mp4", 40, (96, 64))
    (tmp_path / "roomy").mkdir()
    words = [*FAST, *options, "--sr", files.sr, "--overwrite"]
    assert cli("restore", "in.mp4", f"roomy/{name}", *words).code == 0
    disk, is_video = mounted(f"size={kilobytes}k"), "%" not in name
    if is_video:
        (disk / name).write_bytes(b"precious")
    result = cli("restore", "in.mp4", str(disk / name), *words)
    assert result.code == 3 and is_one_error(result.err) and "No space left" in result.err
    kept, expected = visible(disk), visible(tmp_path / "roomy")
    if is_video:
        assert kept == {name: b"precious"}
    else:
        assert kept.items() <= expected.items() and len(kept) < 40
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert cli("restore", "in.mp4", str(disk / name), *words).code == 0
    assert visible(disk) == expected


@pytest.mark.parametrize("option", ["--report", "--save-config"])
def test_full_disk_of_another_file(cli, mounted, option: str) -> None:
    make_video("in.mp4", 2)
    disk = mounted("size=4k")
    (disk / "filler").write_bytes(bytes(4096))
    result = cli("restore", "in.mp4", "o.mkv", *FAST, option, str(disk / "r.toml"))
    assert result.code == 3 and is_one_error(result.err) and "No space left" in result.err
    assert os.listdir(disk) == ["filler"]
    assert not Path("o.mkv").exists() or len(frames_of("o.mkv")) == 2  # whole, or not at all
    result = cli("shots", "in.mp4", "-o", str(disk / "list.txt"), "--progress", "none")
    assert result.code == 3 and is_one_error(result.err) and "No space left" in result.err
    assert os.listdir(disk) == ["filler"]


EIGHT_K = """
import resource, sys
from dtg_restore.cli.main import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


# The second is a strip: lines of twice the width, at little cost.
@pytest.mark.slow
@pytest.mark.parametrize("size", [(3840, 2160), (7680, 64)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_eight_k(files, tmp_path: Path, size: tuple[int, int]) -> None:
    """A frame becomes one of 7680 x 4320, and one of 7680 pixels in width becomes wider still."""
    make_video(tmp_path / "in.mkv", 1, size, "mpeg4")
    arguments = ["restore", "in.mkv", "o.mp4", *FAST, "--sr", files.sr, "--threads", "1"]
    process = subprocess.run(
        [sys.executable, "-c", EIGHT_K, *arguments, "--crf", "40"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert int(process.stdout) * 1024 < 2e9  # a frame of the result in fp32 is 0.4 GB
    info = probe(tmp_path / "o.mp4")
    assert (info.width, info.height, info.num_frames) == (2 * size[0], 2 * size[1], 1)


def test_no_word_of_native_libraries(tmp_path: Path) -> None:
    """FFmpeg and the encoders speak to the same stderr, from C: here it has to stay empty."""
    make_video(tmp_path / "in.mp4", 3)
    for target, codec in (("o.mkv", "hevc"), ("o.mkv", "av1")):
        arguments = ["restore", "in.mp4", target, *FAST, "--codec", codec, "--overwrite"]
        process = start(*arguments, cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out, err) == (0, "", "")
