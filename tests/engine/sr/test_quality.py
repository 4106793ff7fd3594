"""The shipped weights against bicubic on Vid4, one frame of each clip."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
import torch
from torch.nn import functional as F

from dtg_restore.engine.media.planes import frame_to_rgb, rgb_to_frame
from dtg_restore.engine.sr import load_sr
from dtg_restore.engine.types import ColourTags

CLIPS = ("calendar", "city", "walk")


def read_rgb(path):
    """(1, 3, H, W) in [0, 1]."""
    with av.open(str(path)) as container:
        return frame_to_rgb(next(container.decode(video=0)))[None]


def to_bytes(frames):
    return (frames * 255).round().clamp(0, 255)


def blur(frames, sigma):
    taps = torch.arange(-9.0, 10.0)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    frames = F.conv2d(F.pad(frames, (9, 9, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(frames, (0, 0, 9, 9), mode="replicate"), kernel.mT, groups=3)


def compress(frames, crf=16):
    """A clip (T, 3, H, W) through x264."""
    pictures = [rgb_to_frame(frame, "yuv420p", ColourTags(matrix="bt601")) for frame in frames]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf)}
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return torch.stack([frame_to_rgb(frame) for frame in container.decode(video=0)])


def shrink(frames, scale):
    size = [side // scale for side in frames.shape[2:]]
    return to_bytes(F.interpolate(frames, size, mode="bicubic", antialias=True)) / 255


def bicubic(frames, scale):
    return F.interpolate(frames, scale_factor=scale, mode="bicubic", antialias=True)


def psnr_y(result, truth, border):
    weights = torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 255
    error = ((to_bytes(result) - to_bytes(truth)) * weights).sum(1)
    error = error[:, border:-border, border:-border]
    return float(10 * torch.log10(255**2 / error.pow(2).mean()))


@pytest.fixture(scope="module")
def truths(shared_data):
    """Eight frames of each clip, (8, 3, H, W)."""
    folders = {clip: shared_data / "vsr" / f"vid4_{clip}" / "gt" for clip in CLIPS}
    return {
        clip: torch.cat([read_rgb(path) for path in sorted(folder.glob("*.png"))])
        for clip, folder in folders.items()
    }


def mean_gain(truths, scale, degrade):
    """Mean over the clips of PSNR-Y over bicubic on the fourth frame, in dB."""
    sr, gains = load_sr(f"mini-x{scale}"), []
    for clip in truths.values():
        lr, truth = degrade(clip)[3:4], clip[3:4]
        gain = psnr_y(sr.upscale(lr), truth, scale) - psnr_y(bicubic(lr, scale), truth, scale)
        gains.append(gain)
    return sum(gains) / len(gains)


def test_our_lr_is_the_published_one(shared_data, truths):
    for clip, truth in truths.items():
        lr = read_rgb(shared_data / "vsr" / f"vid4_{clip}" / "lr_x4_bicubic" / "007.png")
        codes = ((shrink(truth[3:4], 4) - lr) * 255).abs()
        assert codes.max() < 1.5  # a tie may round the other way
        assert codes.mean() < 1e-3


@pytest.mark.parametrize("scale", [2, 4])
def test_beats_bicubic_on_clean_frames(truths, scale):
    assert mean_gain(truths, scale, lambda clip: shrink(clip, scale)) >= 0.8


@pytest.mark.parametrize("scale", [2, 4])
def test_beats_bicubic_on_blurred_and_compressed_frames(truths, scale):
    def degrade(clip):
        return compress(shrink(blur(clip, 0.3 * scale), scale))

    assert mean_gain(truths, scale, degrade) >= 1.0


@pytest.mark.parametrize("scale", [2, 4])
def test_colours_are_kept(truths, scale):
    sr = load_sr(f"mini-x{scale}")
    for truth in truths.values():
        for lr in (shrink(truth[:1], scale), compress(shrink(truth[:1], scale), crf=20)):
            shift = (sr.upscale(lr).mean(dim=(2, 3)) - lr.mean(dim=(2, 3))).abs().max()
            assert shift < 0.5 / 255


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("level", [0.0, 0.25, 0.5, 1.0])
def test_flat_areas_stay_flat(scale, level):
    result = load_sr(f"mini-x{scale}").upscale(torch.full((1, 3, 32, 32), level))
    inner = result[..., 12 * scale : -12 * scale, 12 * scale : -12 * scale]
    assert (inner - level).abs().max() < 1.5 / 255
