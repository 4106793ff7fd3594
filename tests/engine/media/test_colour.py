"""Colour conversion against the equations of H.273, and through real files."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dtg_restore.engine.errors import InputError
from dtg_restore.engine.media import colour, open_reader, open_writer, probe
from dtg_restore.engine.media.planes import frame_to_rgb, rgb_to_frame
from dtg_restore.engine.types import ColourTags
from dtg_restore.kernels import yuv

CODE = 1 / 255
LUMA = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}
MATRIX_AND_RANGE = list(product(("bt601", "bt709", "bt2020"), (False, True)))


def ramps(height: int = 16) -> torch.Tensor:
    """Grey, red, green, blue, yellow, cyan, magenta ramps beside one another: (3, height, 448)."""
    ramp = torch.linspace(0, 1, 64)
    colours = [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)]
    rows = torch.cat([torch.tensor(c, dtype=torch.float32)[:, None] * ramp for c in colours], 1)
    return rows[:, None, :].expand(3, height, -1).contiguous()


def write_clip(
    path: Path, frames: list[torch.Tensor], tags: ColourTags, **settings: object
) -> None:
    height, width = frames[0].shape[1:]
    with open_writer(
        path, width=width, height=height, fps=Fraction(24), colour=tags, **settings
    ) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.mark.parametrize(("matrix", "full"), MATRIX_AND_RANGE)
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le"])
def test_ramps_return_within_the_rounding(matrix: str, full: bool, pix_fmt: str) -> None:
    """Each of Y, Cb and Cr may be off by half a code and no more; a truncation would show."""
    back = frame_to_rgb(rgb_to_frame(ramps(), pix_fmt, ColourTags(matrix, full)))
    error = back - ramps()
    bits = 10 if pix_fmt.endswith("10le") else 8
    steps = (2**bits - 1, 2**bits - 1) if full else (219 * 2 ** (bits - 8), 224 * 2 ** (bits - 8))
    k_r, k_b = colour.MATRICES[matrix]
    red, blue = 2 * (1 - k_r), 2 * (1 - k_b)
    green = (k_b * blue + k_r * red) / (1 - k_r - k_b)
    bound = torch.tensor([0.5 / steps[0] + k * 0.5 / steps[1] for k in (red, green, blue)])
    assert (error.abs().amax((1, 2)) <= bound + 1e-6).all()
    # In 8-bit terms: grey within half a code, colours within one and a half, before rounding.
    assert error[:, :, :64].abs().max() <= 0.59 * CODE
    assert error.abs().max() <= (1.7 if bits == 8 else 0.43) * CODE


@pytest.mark.parametrize(("matrix", "full"), MATRIX_AND_RANGE)
@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv444p", 8), ("yuv444p10le", 10)])
def test_conversion_has_no_bias(matrix: str, full: bool, pix_fmt: str, bits: int) -> None:
    """Inside the gamut, where no clamping pushes the error to one side."""
    rgb = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    back = frame_to_rgb(rgb_to_frame(rgb, pix_fmt, ColourTags(matrix, full)))
    assert (back - rgb).mean().abs() < 0.02 / 2**bits


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True])
def test_primaries_through_a_file(tmp_path: Path, matrix: str, full: bool) -> None:
    """Odd width: H.264 keeps full chroma, so that what is lost is rounding and the quantiser."""
    frame = ramps(17)[:, :, :447]
    path = tmp_path / "a.mkv"
    write_clip(path, [frame], ColourTags(matrix, full), crf=0)
    with open_reader(path) as reader:
        [back] = reader
    error = ((back - frame) * 255).abs()
    assert error.max() < 2
    assert error.mean() < 0.5


@pytest.mark.parametrize("matrix", LUMA)
def test_known_code_values(matrix: str) -> None:
    rgb = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]).T[:, None, :]
    frame = rgb_to_frame(rgb, "yuv444p", ColourTags(matrix))
    y = np.frombuffer(frame.planes[0], np.uint8)[:5]
    expected = [round(16 + 219 * k) for k in (*LUMA[matrix], 1, 0)]
    assert y.tolist() == expected
    cr = np.frombuffer(frame.planes[2], np.uint8)[0]
    assert cr == 240  # pure red is the end of the chroma scale in every matrix


def test_values_are_rounded_not_truncated() -> None:
    code = torch.arange(256, dtype=torch.float32)
    for offset in (-0.49, 0.49):
        rgb = ((code + offset) / 255)[None, None, :].expand(3, 2, 256)
        back = frame_to_rgb(rgb_to_frame(rgb, "rgb24", ColourTags()))
        assert torch.equal((back[0, 0] * 255).round(), code)
    grey = torch.full((3, 2, 2), (100.6 - 16) / 219)
    luma = np.frombuffer(rgb_to_frame(grey, "yuv420p", ColourTags()).planes[0], np.uint8)
    assert luma[0] == 101


def test_out_of_range_values_are_clamped() -> None:
    rgb = torch.tensor([-0.2, 1.3])[None, None, :].expand(3, 2, 2)
    for pix_fmt in ("yuv420p", "yuv422p10le", "rgb24", "bgr0", "gbrp16le", "rgb48le"):
        back = frame_to_rgb(rgb_to_frame(rgb, pix_fmt, ColourTags()))
        assert torch.allclose(back, rgb.clamp(0, 1), atol=1e-6), pix_fmt


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr0", "gbrp10le", "gbrp16le", "rgb48le"])
def test_rgb_formats_are_exact(pix_fmt: str) -> None:
    bits = max(c.bits for c in av.VideoFormat(pix_fmt, 2, 2).components)
    peak = 2**bits - 1
    code = torch.randint(0, peak + 1, (3, 7, 33), generator=torch.Generator().manual_seed(0))
    back = frame_to_rgb(rgb_to_frame(code / peak, pix_fmt, ColourTags()))
    assert torch.equal((back * peak).round().long(), code)


@pytest.mark.parametrize("pix_fmt", ["nv12", "yuyv422", "p010le", "yuva420p", "yuvj420p"])
def test_other_layouts_read_as_their_planar_twin(pix_fmt: str) -> None:
    twin = {"yuyv422": "yuv422p", "p010le": "yuv420p10le"}.get(pix_fmt, "yuv420p")
    planar = rgb_to_frame(ramps(), twin, ColourTags("bt709", pix_fmt == "yuvj420p"))
    other = planar.reformat(format=pix_fmt) if pix_fmt != "yuvj420p" else planar
    assert (frame_to_rgb(other) - frame_to_rgb(planar)).abs().max() < 1e-6


def test_grey_keeps_its_range() -> None:
    frame = av.VideoFrame(2, 2, "gray")
    np.frombuffer(frame.planes[0], np.uint8)[:] = 126
    assert frame_to_rgb(frame)[0, 0, 0] == pytest.approx(126 / 255)  # untagged grey is full range
    frame.color_range = 1
    assert frame_to_rgb(frame)[0, 0, 0] == pytest.approx(110 / 219)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 8), (8, 5)])
@pytest.mark.parametrize("shifts", [(1, 1), (1, 0), (0, 1), (2, 0), (2, 2)])
def test_chroma_keeps_size_and_constants(size: tuple[int, int], shifts: tuple[int, int]) -> None:
    plane = torch.full(size, 77.0)
    small = yuv.downsample_chroma(plane, shifts)
    assert small.shape == (-(-size[0] // 2 ** shifts[1]), -(-size[1] // 2 ** shifts[0]))
    for centred in (False, True):
        assert torch.equal(yuv.upsample_chroma(small, *size, shifts, centred), plane)


def test_chroma_does_not_move() -> None:
    """A linear slope survives 4:2:0: the sample positions of both directions agree."""
    slope = torch.linspace(0, 60, 61)
    for plane in (slope.expand(61, 61), slope.expand(61, 61).T):
        small = yuv.downsample_chroma(plane, (1, 1))
        back = yuv.upsample_chroma(small, 61, 61, (1, 1), centred=False)
        assert torch.allclose(back[4:-4, 4:-4], plane[4:-4, 4:-4], atol=1e-4)


@pytest.mark.parametrize(("matrix", "full"), [("bt601", False), ("bt709", False), ("bt709", True)])
def test_red_stays_red_through_h264(tmp_path: Path, matrix: str, full: bool) -> None:
    red = torch.tensor((1.0, 0, 0))[:, None, None].expand(3, 32, 64)
    path = tmp_path / "red.mp4"
    write_clip(path, [red] * 3, ColourTags(matrix, full), crf=8)
    with open_reader(path) as reader:
        assert (reader.info.colour.matrix, reader.info.colour.full_range) == (matrix, full)
        assert all((frame - red).abs().max() <= 3 * CODE for frame in reader)


def test_tags_stand_in_stream_and_frames(tmp_path: Path) -> None:
    tags = ColourTags("bt2020", False, primaries=9, transfer=16)
    path = tmp_path / "hdr.mkv"
    write_clip(path, [ramps()], tags, codec="hevc", bit_depth=10)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (9, 1)
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (9, 9, 16)
    info = probe(path)
    assert (info.colour, info.bit_depth) == (tags, 10)


def test_untagged_clips_follow_their_height() -> None:
    assert colour.matrix_name(2, 719) == "bt601"
    assert colour.matrix_name(2, 720) == "bt709"
    with pytest.raises(InputError, match="code point 8"):
        colour.matrix_name(8, 720)
