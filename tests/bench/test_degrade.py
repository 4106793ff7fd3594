"""The synthetic distortions are seeded, keep shape and range, and grow with their severity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.bench.degrade import LEVELS, Distortion, degrade, gaussian_blur, warp

COMPONENTS = {
    "warp": Distortion(warp=1.5),
    "jitter": Distortion(jitter=0.5),
    "blur": Distortion(blur=1.2),
    "shrink": Distortion(shrink=2.0),
    "noise": Distortion(noise=0.04),
    "h264": Distortion(crf=34),
    "jpeg": Distortion(jpeg=40),
}
EVERYTHING = Distortion(
    warp=1, warp_memory=0.5, jitter=0.3, blur=0.8, shrink=1.7, noise=0.03, crf=30, jpeg=60
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(num_frames: int = 4, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Grey structure at several scales and coarse colours, still, away from black and white."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((1, 3, height, width), 0.5)
    for channels, size, weight in ((3, (4, 5), 0.25), (1, (12, 16), 0.2), (1, (24, 32), 0.15)):
        layer = torch.rand(1, channels, *size, generator=generator) - 0.5
        image += weight * F.interpolate(layer, (height, width), mode="bicubic")
    return image.clamp(0.05, 0.95).repeat(num_frames, 1, 1, 1)


def damage(before: Tensor, after: Tensor) -> float:
    return (after - before).square().mean().sqrt().item()


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_does_something_and_is_seeded(name: str) -> None:
    frames = scene()
    before = frames.clone()
    got = degrade(frames, COMPONENTS[name], rng())
    assert torch.equal(frames, before)
    assert damage(frames, got) > 0.003
    assert torch.equal(degrade(frames, COMPONENTS[name], rng()), got)
    by_chance = name in ("warp", "jitter", "noise")
    assert torch.equal(degrade(frames, COMPONENTS[name], rng(1)), got) != by_chance


def test_no_distortion_is_the_identity() -> None:
    frames = scene()
    assert torch.equal(degrade(frames, Distortion(), rng()), frames)
    assert Distortion.sample(0.0, rng()).describe() | {"warp_memory": 0} == Distortion().describe()


@pytest.mark.parametrize(
    "size", [(1, 3, 3), (1, 1, 1), (2, 17, 9), (3, 16, 16), (5, 31, 47), (2, 2, 40)]
)
@pytest.mark.parametrize("name", [*COMPONENTS, "everything"])
def test_shape_and_range_are_kept(name: str, size: tuple[int, int, int]) -> None:
    num_frames, height, width = size
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(num_frames, 3, height, width, generator=generator).round()  # black, white
    got = degrade(frames, COMPONENTS.get(name, EVERYTHING), rng())
    assert got.shape == frames.shape and got.dtype == torch.float32
    assert got.isfinite().all() and got.min() >= 0 and got.max() <= 1


def test_sampling_is_seeded() -> None:
    assert Distortion.sample(0.7, rng(3)) == Distortion.sample(0.7, rng(3))
    assert Distortion.sample(0.7, rng(3)) != Distortion.sample(0.7, rng(4))
    frames = scene()

    def once() -> Tensor:
        generator = rng(5)
        return degrade(frames, Distortion.sample(0.8, generator), generator)

    assert torch.equal(once(), once())


def test_severity_increases_the_damage() -> None:
    """On the average over draws."""
    frames, means = scene(), []
    for level in (0.1, *LEVELS.values()):
        draws = []
        for seed in range(10):
            generator = rng(seed)
            distortion = Distortion.sample(level, generator)
            draws.append(damage(frames, degrade(frames, distortion, generator)))
        means.append(np.mean(draws))
    assert means == sorted(means) and means[-1] > 2 * means[0]
    assert list(LEVELS.values()) == sorted(LEVELS.values())


def test_components_are_proportional_to_the_severity() -> None:
    half, full = (Distortion.sample(s, rng(2)) for s in (0.5, 1.0))
    for name in ("warp", "jitter", "blur", "noise"):
        assert getattr(half, name) == pytest.approx(getattr(full, name) / 2) != 0
    assert half.shrink - 1 == pytest.approx((full.shrink - 1) / 2)
    assert half.warp_memory == full.warp_memory
    assert (half.crf, half.jpeg) != (0, 100)


def test_compression_is_by_frame_or_by_clip() -> None:
    kinds = [Distortion.sample(1.0, rng(seed)) for seed in range(60)]
    by_frame = [d for d in kinds if d.jpeg < 100]
    assert all((d.crf > 0) != (d.jpeg < 100) for d in kinds)
    assert 5 < len(by_frame) < 35  # three in ten


def test_keep_leaves_components_out() -> None:
    kinds = [Distortion.sample(1.0, rng(seed), keep=0.5) for seed in range(60)]
    for name, neutral in (("warp", 0), ("jitter", 0), ("blur", 0), ("noise", 0), ("shrink", 1)):
        left_out = sum(getattr(d, name) == neutral for d in kinds)
        assert 15 < left_out < 45, name


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        (Distortion(warp=0.5), Distortion(warp=2.0)),
        (Distortion(jitter=0.2), Distortion(jitter=1.0)),
        (Distortion(blur=0.6), Distortion(blur=1.8)),
        (Distortion(shrink=1.3), Distortion(shrink=3.0)),
        (Distortion(noise=0.01), Distortion(noise=0.05)),
        (Distortion(crf=22), Distortion(crf=40)),
        (Distortion(jpeg=90), Distortion(jpeg=30)),
    ],
    ids=COMPONENTS,
)
def test_stronger_is_worse(weaker: Distortion, stronger: Distortion) -> None:
    frames = scene()
    a, b = (damage(frames, degrade(frames, d, rng())) for d in (weaker, stronger))
    assert 0 < a < b


def displacement(distortion: Distortion, num_frames: int = 12) -> Tensor:
    """Where `warp` takes each pixel's colour from, in pixels: (T, 2, H, W), x first."""
    height, width = 60, 90
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32)[None].expand(height, width)
    maps = torch.stack((columns, rows, rows))[None].repeat(num_frames, 1, 1, 1)
    moved = warp(maps, distortion, rng()) - maps
    return moved[:, :2, 12:-12, 12:-12]  # away from the reflecting border


def test_jitter_moves_whole_frames_by_pixels() -> None:
    moved = displacement(Distortion(jitter=2.0), 200)
    shift = moved.mean(dim=(2, 3))
    assert (moved - shift[..., None, None]).abs().max() < 1e-2
    assert shift.square().mean().sqrt().item() == pytest.approx(2.0, rel=0.15)
    assert shift[:, 0].std() > 1.5 and shift[:, 1].std() > 1.5  # both axes


def test_warp_is_smooth_local_and_of_the_given_strength() -> None:
    moved = displacement(Distortion(warp=1.5), 60)
    assert 0.6 < moved.square().mean().sqrt().item() / 1.5 < 1.1
    assert moved.diff(dim=-1).abs().max() < 1.5  # no folds and tears
    assert moved.mean(dim=(2, 3)).abs().mean() < 0.7  # not the whole frame


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_warp_memory_is_the_correlation_of_neighbours(memory: float) -> None:
    moved = displacement(Distortion(warp=1.0, warp_memory=memory), 120).flatten(1)
    before, after = moved[:-1], moved[1:]
    correlation = (before * after).mean() / moved.square().mean()
    assert correlation.item() == pytest.approx(memory, abs=0.12)
    assert 0.6 < moved[60:].square().mean().sqrt() < 1.1  # the strength stays the same


def test_blur_keeps_the_mean_and_its_width_is_sigma() -> None:
    impulse = torch.zeros(1, 3, 41, 41)
    impulse[..., 20, 20] = 1
    for sigma in (0.7, 2.0):
        spread = gaussian_blur(impulse, sigma)[0, 0]
        assert spread.sum().item() == pytest.approx(1, abs=1e-5)
        offsets = torch.arange(41.0) - 20
        variance = (spread.sum(0) * offsets.square()).sum().item()
        assert variance**0.5 == pytest.approx(sigma, rel=0.05)
    flat = torch.full((2, 3, 5, 4), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat)


def test_noise_has_the_given_deviation_and_differs_by_frame() -> None:
    frames = torch.full((3, 3, 64, 64), 0.5)
    noise = degrade(frames, Distortion(noise=0.05), rng()) - frames
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs((noise[0] * noise[1]).mean().item()) < 2e-4


@pytest.mark.parametrize("codec", [Distortion(crf=24), Distortion(jpeg=90)], ids=["h264", "jpeg"])
def test_compression_keeps_order_and_colour(codec: Distortion) -> None:
    """Frames come back in their order and number, and no channel or matrix is mixed up."""
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.2, 0.3, 0.8], [0.5, 0.5, 0.5]])
    frames = colours[torch.arange(9) % 4][..., None, None].expand(9, 3, 33, 47).contiguous()
    got = degrade(frames, codec, rng())
    torch.testing.assert_close(got.mean(dim=(2, 3)), frames[..., 0, 0], rtol=0, atol=0.03)


def test_describe_names_every_component() -> None:
    assert Distortion(**EVERYTHING.describe()) == EVERYTHING
    assert replace(EVERYTHING, crf=0) != EVERYTHING
