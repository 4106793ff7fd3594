"""Sequences of pictures: names, numbers, exact values, damage."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from dtg_restore.engine.errors import ConfigError, InputError
from dtg_restore.engine.media import open_reader, open_writer, probe
from dtg_restore.engine.types import ColourTags


def pictures(
    num_frames: int, bits: int = 8, size: tuple[int, int] = (13, 21)
) -> list[torch.Tensor]:
    peak = 2**bits - 1
    generator = torch.Generator().manual_seed(bits)
    return [
        torch.randint(0, peak + 1, (3, *size), generator=generator) / peak
        for _ in range(num_frames)
    ]


def write(path: str | Path, frames: list[torch.Tensor], **settings: object) -> None:
    height, width = frames[0].shape[1:]
    settings = {"fps": Fraction(24), "colour": ColourTags(), **settings}
    with open_writer(path, width=width, height=height, **settings) as writer:
        for frame in frames:
            writer.write(frame)


def read(path: str | Path, *span: int) -> list[torch.Tensor]:
    with open_reader(path, *span) as reader:
        return list(reader)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(13, 21), (3, 3), (1, 1)])
def test_round_trip_is_exact(tmp_path: Path, bits: int, size: tuple[int, int]) -> None:
    frames = pictures(3, bits, size)
    write(tmp_path / "out", frames, bit_depth=bits)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "000000.png", "000001.png", "000002.png",
    ]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(frames, read(tmp_path / "out"), strict=True))
    info = probe(tmp_path / "out")
    assert (info.bit_depth, info.kind, info.num_frames) == (bits, "images", 3)


@pytest.mark.parametrize("pattern", ["shot_%04d.png", "shot_####.png"])
def test_patterns(tmp_path: Path, pattern: str) -> None:
    frames = pictures(3)
    write(tmp_path / "new" / pattern, frames, first_number=9)
    folder = tmp_path / "new"
    assert sorted(p.name for p in folder.iterdir()) == [f"shot_{n:04d}.png" for n in (9, 10, 11)]
    (folder / "other_0001.png").write_bytes(b"not of this sequence")
    with open_reader(folder / pattern) as reader:
        assert reader.first_number == 9
        assert all(torch.equal(a, b) for a, b in zip(frames, reader, strict=True))
    with open_reader(folder / pattern, 1, 2) as reader:
        assert reader.first_number == 10
        assert torch.equal(next(iter(reader)), frames[1])


def test_counter_grows_past_its_digits_in_order(tmp_path: Path) -> None:
    frames = pictures(4)
    write(tmp_path / "a_%01d.png", frames, first_number=8)
    assert all(torch.equal(a, b) for a, b in zip(frames, read(tmp_path / "a_%d.png"), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(frames, read(tmp_path), strict=True))


def test_gaps_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, pictures(2))
    write(tmp_path, pictures(2), first_number=5)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        assert len(read(tmp_path)) == 4
    assert "3 numbers are missing" in caplog.text
    (tmp_path / "000000.png").unlink()
    (tmp_path / "000001.png").rename(tmp_path / "000003.png")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        assert len(read(tmp_path)) == 3
    assert "1 number is missing between its pictures: 4" in caplog.text


def test_negative_numbers(tmp_path: Path) -> None:
    frames = pictures(4)
    for number, frame in zip((-2, -1, 0, 1), frames, strict=True):
        write(tmp_path / "in" / f"one_{number + 2}.%d.png", [frame], first_number=number)
        [file] = (tmp_path / "in").glob("one_*")
        file.rename(tmp_path / "in" / f"a.{number}.png")
    for source in (tmp_path / "in", tmp_path / "in" / "a.%d.png"):
        with open_reader(source) as reader:
            assert (reader.first_number, reader.last_number) == (-2, 1)
            assert all(torch.equal(a, b) for a, b in zip(frames, reader, strict=True))
    (tmp_path / "in" / "shot-7.png").write_bytes((tmp_path / "in" / "a.0.png").read_bytes())
    assert open_reader(tmp_path / "in").last_number == 7  # no sign, but a hyphen


def test_one_picture_keeps_its_number(tmp_path: Path) -> None:
    write(tmp_path / "a.%d.png", pictures(1), first_number=101)
    with open_reader(tmp_path / "a.101.png") as reader:
        assert (reader.first_number, reader.last_number) == (101, 101)


def test_several_sequences_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a_%04d.png", pictures(2))
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        assert len(read(tmp_path)) == 2 and not caplog.text
        write(tmp_path / "a_%04d.tif", pictures(2))
        assert len(read(tmp_path / "a_%04d.png")) == 2 and not caplog.text
        assert len(read(tmp_path)) == 4
    assert "pictures of 2 names are read as one sequence" in caplog.text
    assert "a_####.png, a_####.tif" in caplog.text


def test_more_bits_than_the_first_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, pictures(1, 8), bit_depth=8)
    write(tmp_path, pictures(1, 16), bit_depth=16, first_number=1)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        read(tmp_path)
    assert "000001.png has 16 bits, the first picture 8" in caplog.text


def test_single_picture_and_jpeg(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the JPEG of this test")
    smooth = np.linspace(60, 200, 64 * 3).reshape(1, 64, 3).repeat(32, 0).round().astype(np.uint8)
    image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    [frame] = read(tmp_path / "a.jpg")
    assert (frame.permute(1, 2, 0) * 255 - torch.from_numpy(smooth)).abs().max() < 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_other_png_modes(tmp_path: Path, mode: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the PNG of this test")
    ramp = np.linspace(0, 255, 32).round().astype(np.uint8)[None].repeat(4, 0)
    picture = image.fromarray(ramp).convert("RGB").convert(mode)
    picture.save(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    [frame] = read(tmp_path / "a.png")
    assert torch.equal((frame * 255).round().byte(), expected)


def test_pictures_are_not_overwritten_unasked(tmp_path: Path) -> None:
    write(tmp_path, pictures(2), first_number=1)
    with pytest.raises(InputError, match="000001.png exists"):
        write(tmp_path, pictures(1), first_number=1)
    with pytest.raises(InputError, match="000001.png exists"):
        write(tmp_path, pictures(2), first_number=0)
    write(tmp_path, pictures(2), first_number=1, overwrite=True)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_different_sizes(tmp_path: Path) -> None:
    write(tmp_path, pictures(1))
    write(tmp_path, pictures(1, size=(8, 8)), first_number=1)
    with pytest.raises(InputError, match="000001.png is 8x8, the first picture 21x13"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_damaged_picture(tmp_path: Path, content: bytes | None) -> None:
    write(tmp_path, pictures(3, size=(64, 64)))
    victim = tmp_path / "000001.png"
    victim.write_bytes(victim.read_bytes()[:3000] if content is None else content)
    with pytest.raises(InputError, match="000001.png is not a readable picture"):
        read(tmp_path)


def test_bad_paths(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="no pictures"):
        open_reader(tmp_path)
    with pytest.raises(InputError, match="no pictures"):
        open_reader(tmp_path / "a_%04d.png")
    with pytest.raises(InputError, match="cannot read"):
        open_reader(tmp_path / "missing" / "a_%04d.png")
    with pytest.raises(InputError):
        open_reader(tmp_path / "missing")
    with pytest.raises(ConfigError, match="more than one"):
        open_reader(tmp_path / "a_%04d_%02d.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError):
        write(str(tmp_path / "file") + "/", pictures(1))
    write(tmp_path / "ok", pictures(2))
    with pytest.raises(InputError, match="holds 2 pictures"):
        open_reader(tmp_path / "ok", 2)
