"""Sequences of EXR through the whole restorer: what models cannot see comes back as it went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from dtg_restore.engine.errors import ConfigError, InputError
from dtg_restore.engine.restorer import Restorer

H, W = 20, 24
NAMES = ("R", "G", "B", "A", "Z")
TIMECODE = (0x01000100, 0)


def sequence(folder: Path, numbers: list[int]) -> list[np.ndarray]:
    """Smooth half-float pictures (H, W, 5) with lights up to 50, negative pixels, alpha, depth."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    base = np.linspace(0.05, 0.9, H * W * 3).reshape(H, W, 3)
    pictures = []
    for number in numbers:
        rgb = base + 0.02 * rng.standard_normal(base.shape)
        rgb[2:4, 5:7], rgb[9, 11] = 50.0, -0.25
        rest = np.stack((rng.random((H, W)), 1000 * rng.random((H, W))), -1)
        picture = np.concatenate((rgb, rest), -1).astype(np.float32)
        picture[..., :4] = picture[..., :4].astype(np.float16)
        spec = oiio.ImageSpec(W, H, 5, "half")
        spec.channelnames, spec.channelformats = NAMES, ("half",) * 4 + ("float",)
        spec.attribute("smpte:TimeCode", oiio.TypeTimeCode, (TIMECODE[0] + number, 0))
        path = str(folder / f"shot.{number:04d}.exr")
        output = oiio.ImageOutput.create(path)
        assert output.open(path, spec) and output.write_image(picture)
        output.close()
        pictures.append(picture)
    return pictures


def load_picture(path: Path) -> tuple[np.ndarray, oiio.ImageSpec]:
    file = oiio.ImageInput.open(str(path))
    return file.read_image("float"), file.spec()


def test_what_models_cannot_see_comes_back(load: Callable[..., Restorer], tmp_path: Path) -> None:
    numbers = [1001, 1002, 1003, 1005, 1006, 1007]
    pictures = sequence(tmp_path / "in", numbers)
    report = load().restore_file(tmp_path / "in", tmp_path / "out" / "shot.####.exr")
    assert report["frames"]["count"] == 6
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [f"shot.{number}.exr" for number in numbers]
    for number, before in zip(numbers, pictures, strict=True):
        after, spec = load_picture(tmp_path / "out" / f"shot.{number}.exr")
        assert spec.channelnames == NAMES
        assert [str(f) for f in spec.channelformats] == ["half"] * 4 + ["float"]
        assert np.array_equal(after[..., 3:], before[..., 3:])
        assert (after[2:4, 5:7, :3] == 50).all() and (after[9, 11, :3] == -0.25).all()
        seen = (before[..., :3] >= 0) & (before[..., :3] <= 16)
        changed = np.abs(after[..., :3] - before[..., :3])[seen]
        assert changed.mean() > 1e-3 and after[..., :3][seen].max() < 16.5
        assert spec.getattribute("smpte:TimeCode") == (TIMECODE[0] + number, 0)


def test_they_grow_with_the_picture(load: Callable[..., Restorer], tmp_path: Path) -> None:
    pictures = sequence(tmp_path / "in", [7, 8])
    restorer = load(backbone="none", sr="mini-x2")
    restorer.restore_file(tmp_path / "in", tmp_path / "out", output_color_space="ACEScg")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000007.exr", "000008.exr"]
    for number, before in zip((7, 8), pictures, strict=True):
        after, _ = load_picture(tmp_path / "out" / f"{number:06d}.exr")
        assert after.shape == (2 * H, 2 * W, 5)
        assert np.array_equal(after[..., 4], before[..., 4].repeat(2, 0).repeat(2, 1))
        assert after[5:7, 11:13, :3] == pytest.approx(50, rel=2e-3)  # white stays white
        plain = after[20:, :, 1]
        assert plain.mean() == pytest.approx(before[10:, :, 1].mean(), rel=0.1)


def test_a_part_of_the_sequence(load: Callable[..., Restorer], tmp_path: Path) -> None:
    """Ranges of one sequence share a folder; a range that is there is in the way."""
    sequence(tmp_path / "in", [1, 2, 3, 4])
    restorer = load(backbone="none", sr="mini-x2")
    out = tmp_path / "out" / "a_%d.exr"
    restorer.restore_file(tmp_path / "in", out, frames=(2, 3))
    restorer.restore_file(tmp_path / "in", out, frames=(0, 1))
    assert sorted(p.name for p in out.parent.iterdir()) == [f"a_{n}.exr" for n in (1, 2, 3, 4)]
    with pytest.raises(InputError, match="a_2.exr exists already"):
        restorer.restore_file(tmp_path / "in", out, frames=(1, 2))


def test_a_name_that_is_none(load: Callable[..., Restorer], tmp_path: Path) -> None:
    sequence(tmp_path / "in", [1])
    restorer = load(backbone="none", sr="mini-x2")
    for setting in ("color_space", "output_color_space"):
        with pytest.raises(ConfigError, match="unknown colour space 'ACEScgg'; near: ACEScg"):
            restorer.restore_file(tmp_path / "in", tmp_path / "o", **{setting: "ACEScgg"})
    with pytest.raises(ConfigError, match="with pictures alone"):
        restorer.restore_file(tmp_path / "in", tmp_path / "o.mp4", output_color_space="ACEScg")
