"""What picture files hold beside colours in [0, 1]: it comes back as it went in."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest
import torch
from torch import Tensor

from dtg_restore.engine.errors import ConfigError, InputError
from dtg_restore.engine.media import open_reader, open_writer, probe
from dtg_restore.engine.media.pictures.tone import TOP, decode, to_curve
from dtg_restore.engine.types import ColourTags

H, W = 12, 20
TIMECODE = (0x01020304, 7)
PRIMARIES = (0.71, 0.29, 0.17, 0.8, 0.13, 0.05, 0.32, 0.34)
CAMERA = tuple(float(i) for i in range(16))


def save(path: Path, channels: dict[str, np.ndarray], kinds: str | list[str], **more: Any) -> None:
    height, width = next(iter(channels.values())).shape
    kinds = [kinds] * len(channels) if isinstance(kinds, str) else kinds
    spec = oiio.ImageSpec(width, height, len(channels), kinds[0])
    spec.channelnames = tuple(channels)
    if len(set(kinds)) > 1:
        spec.channelformats = tuple(kinds)
    for name, value in more.pop("attributes", {}).items():
        spec.attribute(name, *(value if isinstance(value, list) else [value]))
    for name, value in more.items():
        setattr(spec, name, value)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec), output.geterror()
    assert output.write_image(np.stack(list(channels.values()), -1)), output.geterror()
    output.close()


def load(path: Path) -> tuple[dict[str, np.ndarray], oiio.ImageSpec]:
    hints = oiio.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageInput.open(str(path), hints)
    pixels = file.read_image("double")
    spec = file.spec()
    return {name: pixels[..., i] for i, name in enumerate(spec.channelnames)}, spec


def copy(source: Path, target: Path | str, scale: int = 1) -> list[Tensor]:
    """Through reader and writer, as a run without models would; the frames that models would see.

    A frame grows by repetition, which the models' frames do not tell from restoration.
    """
    info, seen = probe(source), []
    with (
        open_reader(source) as reader,
        open_writer(
            target,
            width=info.width * scale,
            height=info.height * scale,
            fps=info.fps,
            colour=info.colour,
            bit_depth=info.bit_depth,
            carry_from=source,
            first_number=reader.first_number,
        ) as writer,
    ):
        for index, frame in enumerate(reader):
            seen.append(frame)
            large = frame.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            writer.write(large, reader.take_note(index))
    return seen


@pytest.fixture
def channels() -> dict[str, np.ndarray]:
    """Colours from -3 to 1000, alpha, depth, an id, a vector, a layer; half where it fits."""
    rng = np.random.default_rng(0)
    half = lambda x: x.astype(np.float16).astype(np.float64)  # noqa: E731
    planes = {name: half(rng.random((H, W)) * 1.2) for name in ("R", "G", "B", "A")}
    planes["R"][2, 3], planes["G"][2, 4], planes["B"][7, 7] = 50, -3, 1000
    planes["R"][5], planes["A"][5] = TOP, 1
    planes["Z"] = (rng.random((H, W)) * 1e4).astype(np.float32).astype(np.float64)
    planes["Z"][0, 0] = np.inf
    planes["id"] = rng.integers(0, 1 << 24, (H, W)) / 4294967295.0
    planes["N.X"] = (rng.random((H, W)) - 0.5).astype(np.float32).astype(np.float64)
    planes["diffuse.R"] = half(rng.random((H, W)))
    return planes


KINDS = ["half"] * 4 + ["float", "uint", "float", "half"]


def test_exr_comes_back(tmp_path: Path, channels: dict[str, np.ndarray]) -> None:
    attributes = {
        "smpte:TimeCode": [oiio.TypeTimeCode, TIMECODE],
        "worldToCamera": [oiio.TypeMatrix, CAMERA],
        "PixelAspectRatio": 2.0,
        "FramesPerSecond": [oiio.TypeDesc("rational"), (24000, 1001)],
        "chromaticities": [oiio.TypeDesc("float[8]"), PRIMARIES],
        "compression": "piz",
        "shot": "sh010",
    }  # fmt: skip
    for number in (1001, 1003):
        save(tmp_path / f"in.{number}.exr", channels, KINDS, attributes=attributes)
    info = probe(tmp_path / "in.####.exr")
    assert (info.bit_depth, info.pixel_aspect, str(info.fps)) == (16, 2, "24000/1001")
    [seen, _] = copy(tmp_path / "in.####.exr", tmp_path / "out" / "o.####.exr")
    assert seen.min() >= 0 and seen.max() <= 1
    assert seen[0, 2, 3] == 1 and seen[1, 2, 4] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["o.1001.exr", "o.1003.exr"]
    back, spec = load(tmp_path / "out" / "o.1003.exr")
    before, old = load(tmp_path / "in.1003.exr")
    assert spec.channelnames == old.channelnames
    for name in ("A", "Z", "id", "N.X", "diffuse.R"):
        assert np.array_equal(back[name], before[name]), name
    for name in "RGB":
        outside = (before[name] < 0) | (before[name] > TOP)
        assert outside.any() and np.array_equal(back[name][outside], before[name][outside])
        assert np.array_equal(back[name].astype(np.float16), before[name].astype(np.float16))
    kept = {a.name: a.value for a in old.extra_attribs}
    assert {a.name: a.value for a in spec.extra_attribs} == kept
    assert kept["smpte:TimeCode"] == TIMECODE and kept["compression"] == "piz"


def test_types_of_channels_stay(tmp_path: Path, channels: dict[str, np.ndarray]) -> None:
    save(tmp_path / "a_1.exr", channels, KINDS)
    copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr")
    _, spec = load(tmp_path / "out" / "a_1.exr")
    assert [str(f) for f in spec.channelformats] == KINDS


def test_channels_grow(tmp_path: Path, channels: dict[str, np.ndarray]) -> None:
    save(tmp_path / "a_1.exr", channels, KINDS)
    copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr", scale=2)
    back, _ = load(tmp_path / "out" / "a_1.exr")
    before, _ = load(tmp_path / "a_1.exr")
    for name in ("Z", "id", "N.X"):
        assert np.array_equal(back[name], before[name].repeat(2, 0).repeat(2, 1)), name
    for name in ("A", "diffuse.R"):
        plane = before[name]
        assert back[name][2, 3] == pytest.approx(
            (9 * plane[1, 1] + 3 * plane[0, 1] + 3 * plane[1, 2] + plane[0, 2]) / 16, abs=1e-3
        )
    assert 25 < back["R"][4:6, 6:8].max() <= 50 and back["B"].max() > 500
    assert back["G"].min() < -1


def test_nan_and_infinity_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plane = np.full((H, W), 0.25)
    red = plane.copy()
    red[3, 4], red[6, 7], red[8, 2] = np.nan, np.inf, -np.inf
    save(tmp_path / "a_1.exr", {"R": red, "G": plane, "B": plane}, "half")
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        [seen] = copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr")
    assert "3 samples are NaN or infinite" in caplog.text
    assert seen.isfinite().all()
    back, _ = load(tmp_path / "out" / "a_1.exr")
    assert np.array_equal(back["R"], red.astype(np.float16), equal_nan=True)
    copy(tmp_path / "a_1.exr", tmp_path / "large" / "a_%d.exr", scale=2)
    back, _ = load(tmp_path / "large" / "a_1.exr")
    assert np.isnan(back["R"]).sum() == 4 and np.isinf(back["R"]).sum() == 8


def test_windows(tmp_path: Path) -> None:
    """A data window that moves within the display window, and overscan in the first picture."""
    rng = np.random.default_rng(0)
    display = {"full_x": 0, "full_y": 0, "full_width": 24, "full_height": 16}
    places = [(-2, -1, W, H), (5, 3, 10, 7), (0, 0, 22, 15)]
    for number, (x, y, width, height) in enumerate(places):
        planes = {name: rng.random((height, width)) for name in ("R", "G", "B", "Z")}
        save(tmp_path / f"a_{number}.exr", planes, "float", x=x, y=y, **display)
    info = probe(tmp_path / "a_%d.exr")
    assert (info.width, info.height) == (26, 17)
    seen = copy(tmp_path / "a_%d.exr", tmp_path / "same" / "a_%d.exr")
    copy(tmp_path / "a_%d.exr", tmp_path / "twice" / "a_%d.exr", scale=2)
    assert seen[1][:, :4].eq(0).all() and seen[1][:, 4:11, 7:17].gt(0).any()
    for number, place in enumerate(places):
        before, old = load(tmp_path / f"a_{number}.exr")
        back, spec = load(tmp_path / "same" / f"a_{number}.exr")
        assert (spec.x, spec.y, spec.width, spec.height) == place
        assert (spec.full_x, spec.full_width, spec.full_height) == (0, 24, 16)
        assert np.array_equal(back["Z"], before["Z"])
        assert np.allclose(back["R"], before["R"], atol=1e-5)
        _, large = load(tmp_path / "twice" / f"a_{number}.exr")
        assert (large.x, large.y, large.width, large.height) == tuple(2 * v for v in place)
        assert (large.full_width, large.full_height) == (48, 32)
    wide = {name: rng.random((H, 30)) for name in "RGB"}
    save(tmp_path / "a_3.exr", wide, "float", **display)
    with pytest.raises(InputError, match="a_3.exr is 30x16, the first picture 26x17 at -2, -1"):
        copy(tmp_path / "a_%d.exr", tmp_path / "no" / "a_%d.exr")


@pytest.mark.parametrize("suffix", ["png", "tif", "exr", "dpx"])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha(tmp_path: Path, suffix: str, bits: int) -> None:
    """Straight alpha of PNG: kept in PNG and TIFF, multiplied in for EXR."""
    kind, peak = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    rng = np.random.default_rng(1)
    planes = {name: rng.integers(1, peak + 1, (H, W)).astype(kind) for name in "RGBA"}
    straight = {"oiio:UnassociatedAlpha": 1}
    save(tmp_path / "a_1.png", planes, str(np.dtype(kind)), attributes=straight)
    copy(tmp_path / "a_1.png", tmp_path / "out" / f"a_%d.{suffix}")
    copy(tmp_path / "out" / f"a_1.{suffix}", tmp_path / "back" / "a_%d.png")
    back, _ = load(tmp_path / "out" / f"a_1.{suffix}")
    before, _ = load(tmp_path / "a_1.png")
    if suffix == "dpx" and bits == 8:  # in 10 bits OpenImageIO mixes up four channels
        assert set(back) == set("RGB")
        assert all(np.allclose(back[name], before[name], atol=1e-3) for name in "RGB")
        return
    exact = suffix in ("png", "tif")
    assert np.allclose(back["A"], before["A"], atol=0 if exact else 1e-3)
    if exact:
        assert all(np.array_equal(back[name], before[name]) for name in "RGB")
    if suffix == "exr":
        linear = ((before["R"] + 0.055) / 1.055) ** 2.4 * before["A"]
        inside = before["R"] > 0.05
        assert np.allclose(back["R"][inside], linear[inside], rtol=2e-3)
    if suffix == "dpx" and bits == 16:
        assert np.array_equal(back["R"], before["R"])


@pytest.mark.parametrize(
    ("suffix", "bit_depth", "kind", "bits", "error"),
    [
        ("png", 8, "uint8", 8, 0.5 / 255),
        ("png", 16, "uint16", 16, 0.5 / 65535),
        ("tif", 8, "uint8", 8, 0.5 / 255),
        ("tiff", 12, "uint16", 16, 0.5 / 65535),
        ("dpx", 8, "uint16", 10, 0.5 / 1023),
        ("dpx", 12, "uint16", 12, 0.5 / 4095),
        ("dpx", 16, "uint16", 16, 0.5 / 65535),
        ("exr", 8, "half", 16, 1e-3),
        ("exr", 32, "float", 32, 1e-6),
        ("jpg", 16, "uint8", 8, 0.06),
    ],
)
def test_written_types(
    tmp_path: Path, suffix: str, bit_depth: int, kind: str, bits: int, error: float
) -> None:
    ramp = torch.linspace(0, 1, 3 * H * W).view(3, H, W)
    file, written = tmp_path / f"a_0000.{suffix}", []
    for _ in range(2):
        with open_writer(
            tmp_path / f"a_####.{suffix}",
            width=W,
            height=H,
            fps=Fraction(24),
            colour=ColourTags(),
            bit_depth=bit_depth,
            overwrite=True,
        ) as writer:
            writer.write(ramp)
        written.append(file.read_bytes())
        # Some formats would store when they were written, to a second.
        time.sleep(0.6 if suffix in ("tif", "exr") else 0)
    assert written[0] == written[1]
    spec = oiio.ImageInput.open(str(file)).spec()
    assert str(spec.format) == kind
    assert spec.get_int_attribute("oiio:BitsPerSample", bits) == bits
    with open_reader(file) as reader:
        [seen] = list(reader)
    expected = to_curve(decode(ramp)) if suffix == "exr" else ramp
    assert (seen - expected).abs().max() <= error * 1.01


@pytest.mark.parametrize("suffix", ["png", "tif", "exr", "dpx", "jpg", "bmp", "webp"])
def test_truncated(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    rng = np.random.default_rng(0)
    planes = {name: rng.integers(0, 256, (80, 90)).astype(np.uint8) for name in "RGB"}
    file = tmp_path / f"a_1.{suffix}"
    kind = {"exr": "half", "dpx": "uint16"}.get(suffix, "uint8")
    save(file, planes, kind)
    with open_reader(file) as reader:
        assert len(list(reader)) == 1
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match=f"a_1.{suffix} is not a readable picture"):
        list(open_reader(file))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    """Against OpenImageIO's own turning."""
    ramp = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    planes = {"R": ramp, "G": ramp, "B": ramp}
    save(tmp_path / "a_1.tif", planes, "uint8", attributes={"Orientation": orientation})
    expected = oiio.ImageBufAlgo.reorient(oiio.ImageBuf(str(tmp_path / "a_1.tif")))
    [seen] = copy(tmp_path / "a_1.tif", tmp_path / "out" / "a_%d.tif")
    pixels = torch.from_numpy(expected.get_pixels(oiio.UINT8)).permute(2, 0, 1)
    assert torch.equal((seen * 255).round().byte(), pixels)
    back, spec = load(tmp_path / "out" / "a_1.tif")
    assert spec.get_int_attribute("Orientation", 1) == 1
    assert np.array_equal(np.round(back["R"] * 255), pixels[0].numpy())


def test_what_is_refused_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plane = np.full((H, W), 0.5)
    save(tmp_path / "z.exr", {"Z": plane, "P": plane}, "float")
    with pytest.raises(InputError, match=r"z.exr holds no colours: its channels are"):
        open_reader(tmp_path / "z.exr")
    deep = oiio.ImageSpec(W, H, 4, "float")
    deep.channelnames, deep.deep = ("R", "G", "B", "Z"), True
    output = oiio.ImageOutput.create(str(tmp_path / "d.exr"))
    output.open(str(tmp_path / "d.exr"), deep)
    data = oiio.DeepData()
    data.init(W * H, 4, "float", ("R", "G", "B", "Z"))
    output.write_deep_image(data)
    output.close()
    with pytest.raises(InputError, match=r"d.exr is a deep picture"):
        open_reader(tmp_path / "d.exr")
    layer = {"beauty.R": plane, "beauty.G": plane / 2, "beauty.B": plane, "mask": plane}
    save(tmp_path / "l_1.exr", layer, "half")
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        copy(tmp_path / "l_1.exr", tmp_path / "same" / "a_%d.exr")
        copy(tmp_path / "l_1.exr", tmp_path / "png" / "a_%d.png")
    assert "colours beauty.R, beauty.G, beauty.B are restored" in caplog.text
    assert "channels mask are left out: .png has no place for them" in caplog.text
    back, _ = load(tmp_path / "same" / "a_1.exr")
    assert back.keys() == layer.keys() and back["beauty.G"][0, 0] == 0.25


def test_large_numbers_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plane = np.full((H, W), 0.5)
    save(tmp_path / "a_1.exr", {"R": plane, "G": plane, "B": plane, "id": plane},
         ["half", "half", "half", "uint"])  # fmt: skip
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr")
    assert "channel id is left out" in caplog.text
    assert load(tmp_path / "out" / "a_1.exr")[0].keys() == {"R", "G", "B"}


def test_first_of_several_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = str(tmp_path / "a_1.exr")
    specs = [oiio.ImageSpec(W, H, 3, "half") for _ in range(2)]
    for name, spec in zip(("rgb", "other"), specs, strict=True):
        spec.attribute("oiio:subimagename", name)
    output = oiio.ImageOutput.create(file)
    output.open(file, tuple(specs))
    output.write_image(np.full((H, W, 3), 0.25, np.float32))
    output.open(file, specs[1], "AppendSubimage")
    output.write_image(np.full((H, W, 3), 0.75, np.float32))
    output.close()
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr")
    assert "of the 2 parts of a picture the first with colours is restored" in caplog.text
    back, spec = load(tmp_path / "out" / "a_1.exr")
    assert (back["R"] == 0.25).all() and spec.get_int_attribute("oiio:subimages", 1) == 1


def test_part_with_colours(tmp_path: Path) -> None:
    """Depth may come first."""
    file = str(tmp_path / "a_1.exr")
    depth, rgb = oiio.ImageSpec(W, H, 1, "float"), oiio.ImageSpec(W, H, 3, "half")
    depth.channelnames = ("Z",)
    output = oiio.ImageOutput.create(file)
    output.open(file, (depth, rgb))
    output.write_image(np.full((H, W, 1), 9, np.float32))
    output.open(file, rgb, "AppendSubimage")
    output.write_image(np.full((H, W, 3), 0.25, np.float32))
    output.close()
    copy(tmp_path / "a_1.exr", tmp_path / "out" / "a_%d.exr")
    back, spec = load(tmp_path / "out" / "a_1.exr")
    assert back.keys() == {"R", "G", "B"} and (back["R"] == 0.25).all()
    assert spec.format.basetype == oiio.HALF


def test_depth_alone_is_no_colour(tmp_path: Path) -> None:
    save(tmp_path / "a_1.exr", {"Z": np.ones((H, W))}, "float")
    with pytest.raises(InputError, match="holds no colours: its channels are Z"):
        probe(tmp_path / "a_1.exr")


def test_code_values_of_hdr_are_no_light(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"width": W, "height": H, "fps": Fraction(24)}
    pq = ColourTags("bt2020", primaries=9, transfer=16)
    frame = torch.full((3, H, W), 0.5)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        for name in ("a_%d.png", "a_%d.exr"):
            assert not caplog.text
            with open_writer(tmp_path / name, colour=pq, **settings) as writer:
                writer.write(frame)
                writer.write(frame)
    assert caplog.text.count("PQ or HLG are written as they are") == 1
    with pytest.raises(ConfigError, match="PQ or HLG: it cannot be written as ACEScg"):
        open_writer(tmp_path / "b_%d.exr", colour=pq, colour_space="ACEScg",
                    carry_from="clip.mov", **settings)  # fmt: skip


def test_what_a_video_has_no_place_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    planes = {name: np.full((16, 16), 0.5) for name in ("R", "G", "B", "A", "Z")}
    for number in (1, 2):
        save(tmp_path / f"a_{number}.exr", planes, "half")
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        copy(tmp_path / "a_%d.exr", tmp_path / "out.mkv")
    assert caplog.text.count("white is 84% of the video's") == 1
    assert "no place for channels A, Z: left out" in caplog.text


def test_float_tiff_is_linear(tmp_path: Path) -> None:
    plane = np.linspace(-1, 60, H * W).reshape(H, W)
    save(tmp_path / "a_1.tif", {"R": plane, "G": plane, "B": plane}, "float")
    copy(tmp_path / "a_1.tif", tmp_path / "out" / "a_%d.tif")
    back, spec = load(tmp_path / "out" / "a_1.tif")
    assert str(spec.format) == "float"
    before, _ = load(tmp_path / "a_1.tif")
    assert np.allclose(back["R"], before["R"], rtol=3e-6, atol=1e-7)
    outside = (plane < 0) | (plane > TOP)
    assert np.array_equal(back["R"][outside], before["R"][outside])


def test_a_folder_gets_the_type_of_the_source(tmp_path: Path) -> None:
    plane = np.full((H, W), 0.5)
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.0007.exr", {"R": plane, "G": plane, "B": plane}, "half")
    copy(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["000007.exr"]


@pytest.mark.parametrize("suffix", ["png", "tif", "exr", "dpx", "jpg"])
def test_full_disk(tmp_path: Path, suffix: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        noise = torch.rand(3, 300, 300)
        writer = open_writer(
            disk / f"%d.{suffix}", width=300, height=300, fps=Fraction(24), colour=ColourTags()
        )
        with pytest.raises(InputError, match=f"cannot write .*0.{suffix}: ."), writer:
            writer.write(noise)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
