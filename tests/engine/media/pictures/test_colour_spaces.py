"""Colour spaces of pictures by name."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import OpenImageIO as oiio
import pytest
import torch

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.media import open_reader, open_writer, probe
from dtg_restore.engine.media.pictures.colour_spaces import (
    DISPLAY,
    LINEAR,
    check_space,
    convert,
    is_scene_light,
)
from dtg_restore.engine.media.pictures.tone import from_curve
from dtg_restore.engine.types import ColourTags


def write(path: Path, rgb: torch.Tensor, kind: str) -> None:
    spec = oiio.ImageSpec(rgb.shape[2], rgb.shape[1], 3, kind)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec)
    assert output.write_image(rgb.permute(1, 2, 0).contiguous().numpy())
    output.close()


def read(path: Path) -> torch.Tensor:
    pixels = oiio.ImageInput.open(str(path)).read_image("float")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def copy(source: Path, target: str, space: str | None, output_space: str | None = None) -> None:
    """Through reader and writer, as a run without models would."""
    info = probe(source, colour_space=space)
    with (
        open_reader(source, colour_space=space) as reader,
        open_writer(
            target,
            width=info.width,
            height=info.height,
            fps=info.fps,
            colour=info.colour,
            bit_depth=info.bit_depth,
            carry_from=source,
            colour_space=output_space,
        ) as writer,
    ):
        for index, frame in enumerate(reader):
            assert frame.min() >= 0 and frame.max() <= 1
            writer.write(frame, reader.take_note(index))


def test_names_and_aliases() -> None:
    check_space("ACEScg")
    check_space("lin_ap1")
    check_space("LINEAR REC.2020")
    x = torch.full((3, 1, 1), 0.5)
    assert torch.equal(convert(x, "sRGB", LINEAR), convert(x, DISPLAY, LINEAR))
    assert torch.equal(convert(x, "scene_linear", LINEAR), convert(x, "ACEScg", LINEAR))
    with pytest.raises(ConfigError, match="unknown colour space 'ACEScgg'; near: ACEScg"):
        check_space("ACEScgg")
    with pytest.raises(ConfigError, match="known: .*Linear Rec.2020"):
        check_space("?")


def test_spaces_with_more_light_than_white() -> None:
    bright = [
        n for n in ("ACEScg", "ACEScct", "Rec.2100-PQ - Display", LINEAR) if is_scene_light(n)
    ]
    assert len(bright) == 4
    assert not any(map(is_scene_light, (DISPLAY, "Gamma 2.2 Encoded AdobeRGB", "sRGB - Display")))


def test_known_values() -> None:
    """Red of ACES AP1 in BT.709, from the chromaticities of both (Bradford D60 to D65)."""
    red = convert(torch.tensor([1.0, 0, 0]).view(3, 1, 1), "ACEScg", LINEAR).flatten()
    assert torch.allclose(red, torch.tensor([1.70505, -0.13026, -0.02400]), atol=2e-4)
    grey = convert(torch.full((3, 1, 1), 0.18), "LIN_REC709", DISPLAY)
    assert torch.allclose(grey, torch.full((3, 1, 1), 0.46135), atol=2e-4)


def test_acescg_comes_back(tmp_path: Path) -> None:
    """Far above white, negative in BT.709, and in half precision bit for bit."""
    x = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0)) * 2
    x[:, 0, 0], x[:, 0, 1], x[:, 0, 2] = 50, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 9, 0])
    write(tmp_path / "a_0001.exr", x.half().float(), "half")
    copy(tmp_path / "a_0001.exr", str(tmp_path / "out" / "b_%04d.exr"), "ACEScg")
    back = read(tmp_path / "out" / "b_0001.exr")
    assert (back - x.half().float()).abs().max() <= 2e-3 and back[:, 0, 0].eq(50).all()
    copy(
        tmp_path / "a_0001.exr", str(tmp_path / "out2" / "b_%04d.exr"), "ACEScg", "Linear Rec.2020"
    )
    expected = convert(x.half().float(), "ACEScg", "Linear Rec.2020")
    assert torch.allclose(read(tmp_path / "out2" / "b_0001.exr"), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("space", ["Gamma 2.2 Encoded AdobeRGB", "sRGB Encoded P3-D65"])
def test_wide_gamut_in_integers_comes_back(tmp_path: Path, space: str) -> None:
    x = torch.randint(0, 65536, (3, 8, 9), generator=torch.Generator().manual_seed(1)) / 65535
    write(tmp_path / "a_0001.png", x, "uint16")
    copy(tmp_path / "a_0001.png", str(tmp_path / "out" / "b_%04d.png"), space)
    error = (read(tmp_path / "out" / "b_0001.png") - x).abs()
    assert error[x > 0.05].max() < 4e-4
    assert error.max() < 2e-3  # a gamma is steep at 0


def test_exr_of_display_code_is_linear(tmp_path: Path) -> None:
    x = torch.linspace(0, 1, 48).view(3, 4, 4)
    with open_writer(
        tmp_path / "out" / "%04d.exr", width=4, height=4, fps=Fraction(24), colour=ColourTags()
    ) as writer:
        writer.write(x)
    expected = convert(x, DISPLAY, LINEAR)
    assert torch.allclose(read(tmp_path / "out" / "0000.exr"), expected, rtol=2e-3, atol=1e-4)


def test_exr_to_png(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.linspace(0, 1.2, 48).view(3, 4, 4)
    write(tmp_path / "a_0001.exr", x, "half")
    copy(tmp_path / "a_0001.exr", str(tmp_path / "named" / "%04d.png"), None, DISPLAY)
    named = read_one(tmp_path / "named")
    assert torch.allclose(named, convert(x, LINEAR, DISPLAY).clamp(0, 1), atol=1e-3)
    assert "under the curve" not in caplog.text
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        copy(tmp_path / "a_0001.exr", str(tmp_path / "toned" / "%04d.png"), None)
    assert "under the curve" in caplog.text
    assert torch.allclose(from_curve(read_one(tmp_path / "toned")), x, rtol=2e-2, atol=1e-3)


def read_one(folder: Path) -> torch.Tensor:
    [file] = folder.iterdir()
    return read(file)


def test_videos_have_no_named_space(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    settings = {"width": 16, "height": 16, "fps": Fraction(24), "colour": ColourTags()}
    with pytest.raises(ConfigError, match="with pictures alone"):
        open_writer(video, colour_space="ACEScg", **settings)
    with open_writer(video, **settings) as writer:
        writer.write(torch.zeros(3, 16, 16))
    with pytest.raises(ConfigError, match="of pictures alone"):
        open_reader(video, colour_space="ACEScg")
    with pytest.raises(ConfigError, match="unknown colour space"):
        open_writer(tmp_path / "x" / "%d.exr", colour_space="no", **settings)
