"""Stage one on a chunk, against the method written out by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.facts import MINI
from dtg_restore.engine.backbones.mini import PHASES, TAGS, MiniBackbone, MiniDiT
from dtg_restore.engine.codecs.pixels import PixelCodec
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import OutOfMemory
from dtg_restore.engine.plan import make_plan
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.runtimes import loop
from dtg_restore.engine.schedule import nodes
from dtg_restore.engine.types import Chunk
from dtg_restore.kernels import color_match, gaussian_noise

Clip = Callable[..., Tensor]


def refine(
    backbone: MiniBackbone, frames: Tensor, chunk: Chunk | None = None, **settings: object
) -> Tensor:
    settings = {"chunk": 4, "overlap": 2, "tile": (0, 0), "t_start": 0.5, "steps": 2} | settings
    config = RestoreConfig(**settings)
    plan = make_plan(config, *frames.shape[-2:])
    chunk = chunk or Chunk(0, 0, len(frames))
    return Refiner(backbone, PixelCodec(backbone.device), config, plan)(frames, chunk)


def by_hand(
    network: MiniDiT, frames: Tensor, config: RestoreConfig, start: int, tags: tuple[str, str]
) -> Tensor:
    """DESIGN 2 in x_0 space, step by step, with explicit predictions."""
    z = (2 * frames - 1).transpose(0, 1)[None]
    table = nodes(config.dtg(MINI.defaults))
    noise = gaussian_noise(config.seed, start, len(frames), 3, *frames.shape[-2:], device="cpu")
    x = (1 - table[0].t) * z + table[0].t * noise
    for i, (here, there) in enumerate(pairwise(table)):
        predictions = []
        for time, tag in zip((here.t, here.tau), tags, strict=True):
            t, index = torch.tensor([time]), torch.tensor([TAGS.index(tag)])
            v = network(x, t, network.condition(t, index, PHASES[i % len(PHASES)]))
            predictions.append(x - time * v)
        x0 = predictions[1] + here.alpha * (predictions[0] - predictions[1])
        x = x + (there.t - here.t) * (x - x0) / here.t
    return ((x[0].transpose(0, 1) + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize(
    ("prompts", "tags"),
    [
        ({}, ("clean", "null")),
        ({"prompt": "null", "negative_prompt": "degraded"}, ("null", "degraded")),
    ],
)
def test_against_the_method_by_hand(
    network: MiniDiT,
    backbone: MiniBackbone,
    clip: Clip,
    prompts: dict[str, str],
    tags: tuple[str, str],
) -> None:
    settings = {"t_start": 0.5, "steps": 5, "delta0": 0.2, "alpha0": 2.0, "space": "x0", "seed": 3}
    frames, config = clip(4, 16, 24), RestoreConfig(**settings)
    got = refine(backbone, frames, Chunk(7, 14, 18), **settings, **prompts)
    want = by_hand(network, frames, config, 14, tags)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    assert (want - frames).abs().mean() > 0.02


def test_sdedit_bit_for_bit(network: MiniDiT, backbone: MiniBackbone, clip: Clip) -> None:
    """No guidance is the plain loop of one pass a step, to the last bit."""
    frames = clip(4, 8, 16)
    got = refine(backbone, frames, guidance="none", t_start=0.5, steps=4)
    noise = gaussian_noise(0, 0, 4, 3, 8, 16, device="cpu")
    x = 0.5 * (frames.transpose(0, 1) * 2 - 1)[None] + 0.5 * noise
    table = nodes(RestoreConfig(guidance="none", t_start=0.5, steps=4).dtg(backbone.facts.defaults))
    context = backbone.prepare("clean", "null", table)
    for i, t in enumerate((0.5, 0.375, 0.25, 0.125)):  # dt * v is exact
        x = x - 0.125 * backbone.velocity(x, torch.tensor([t]), context.at(i, ["cond"], 1))
    assert torch.equal(got, ((x[0].transpose(0, 1) + 1) / 2).clamp(0, 1))


def test_cfg_sees_one_time_and_scale_alpha(
    network: MiniDiT, backbone: MiniBackbone, clip: Clip
) -> None:
    frames = clip(4, 8, 16)
    got = refine(backbone, frames, guidance="cfg", alpha0=3.0, steps=3)
    same = refine(backbone, frames, delta0=0.0, alpha0=3.0, schedule="constant", steps=3)
    assert torch.equal(got, same)
    config = RestoreConfig(guidance="cfg", alpha0=3.0, t_start=0.5, steps=3)
    table = nodes(config.dtg(backbone.facts.defaults))
    assert all(n.tau == n.t and n.alpha == 3 for n in table)
    want = by_hand(network, frames, config, 0, ("clean", "null"))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_noise_is_where_the_chunk_is(backbone: MiniBackbone, clip: Clip) -> None:
    frames = clip(4, 8, 8)
    here, again = (refine(backbone, frames, Chunk(0, 0, 4)) for _ in range(2))
    there = refine(backbone, frames, Chunk(1, 2, 6))
    assert torch.equal(here, again)
    assert (here - there).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (17, 9), (16, 24)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shape_range_and_padding(
    backbone: MiniBackbone, clip: Clip, count: int, size: tuple[int, int]
) -> None:
    frames = clip(count, *size)
    before = frames.clone()
    got = refine(backbone, frames, Chunk(0, 0, count))
    assert got.shape == frames.shape and got.dtype == torch.float32
    assert got.min() >= 0 and got.max() <= 1 and torch.equal(frames, before)
    assert got.untyped_storage().data_ptr() != frames.untyped_storage().data_ptr()


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_color_match_takes_colours_of_the_input(
    backbone: MiniBackbone, clip: Clip, method: str
) -> None:
    frames = clip(4, 24, 17)  # padded, so that what is refined is a part of a larger picture
    plain = refine(backbone, frames)
    matched = refine(backbone, frames, color_match=method)
    assert torch.equal(matched, color_match(plain, frames, method).clamp(0, 1))
    drift, matched_drift = ((x - frames).mean((2, 3)).abs().max() for x in (plain, matched))
    assert matched_drift < 0.7 * drift  # clamping leaves some


def test_padding_is_reflection(backbone: MiniBackbone, clip: Clip) -> None:
    """Frames 0 1 2 are refined as 0 1 2 1 would be, and columns likewise."""
    frames = clip(3, 8, 7)
    whole = torch.cat((frames, frames[1:2]))
    whole = torch.cat((whole, whole[..., -2:-1]), dim=-1)
    got, want = refine(backbone, frames, Chunk(0, 0, 3)), refine(backbone, whole)
    assert torch.equal(got, want[:3, :, :, :7])


@pytest.mark.parametrize("batch", [2, 3, 7, 100])
def test_tile_batch_does_not_matter(backbone: MiniBackbone, clip: Clip, batch: int) -> None:
    frames, tiled = clip(4, 24, 40), {"tile": (16, 16), "tile_overlap": 8}
    one = refine(backbone, frames, **tiled, tile_batch=1)
    many = refine(backbone, frames, **tiled, tile_batch=batch)
    torch.testing.assert_close(many, one, rtol=0, atol=1e-6)


def test_tiles_are_near_the_whole_frame(backbone: MiniBackbone, clip: Clip) -> None:
    """Attention sees less, so not equal; but far nearer than the refinement moved the frames."""
    frames = clip(4, 24, 40)
    whole = refine(backbone, frames)
    assert torch.equal(refine(backbone, frames, tile=(40, 24)), whole)
    assert torch.equal(refine(backbone, frames, tile=(800, 0)), whole)
    tiled = refine(backbone, frames, tile=(24, 16), tile_overlap=8)
    assert 0 < (tiled - whole).abs().mean() < 0.3 * (whole - frames).abs().mean()


def test_no_seams_between_tiles(backbone: MiniBackbone) -> None:
    """On a flat frame the steps across tile edges are no larger than elsewhere."""
    flat = torch.full((4, 3, 16, 64), 0.5)
    tiled = refine(backbone, flat, tile=(16, 16), tile_overlap=8)
    steps = tiled.diff(dim=-1).abs().mean(dim=(0, 1, 2))  # step i is from column i to i + 1
    edges = [7, 15, 23, 31, 39, 47, 55]
    inside = [i for i in range(63) if i % 8 != 7]
    assert steps[edges].mean() < 1.5 * steps[inside].mean()


def test_unstable_alpha_is_said_and_clipping_silences(
    backbone: MiniBackbone, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    wild = {"t_start": 0.3, "delta0": 0.25, "alpha0": 9.0}
    with caplog.at_level(logging.WARNING, logger="dtg_restore"):
        loud = refine(backbone, clip(4, 8, 8), **wild)
        assert (
            "alpha exceeds its stable maximum at 2 of 2 steps (9.00 > 1.87 at t = 0.300)"
            in caplog.text
        )
        assert "alpha_clip" in caplog.text
        caplog.clear()
        clipped = refine(backbone, clip(4, 8, 8), **wild, alpha_clip=True)
        refine(backbone, clip(4, 8, 8), t_start=0.3, delta0=0.05, alpha0=1.2)
    assert not caplog.records
    assert not torch.equal(loud, clipped)


def test_out_of_memory_suggests_a_smaller_tile(
    backbone: MiniBackbone, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(backbone, "velocity", full)
    with pytest.raises(OutOfMemory, match="Tried to allocate 2 GiB") as caught:
        refine(backbone, clip(4, 64, 96), tile=(96, 64))
    assert caught.value.suggested_tile == (48, 32)


def test_steps_are_told(backbone: MiniBackbone, clip: Clip) -> None:
    config = RestoreConfig(chunk=4, overlap=2, steps=3, t_start=0.3)
    plan, seen = make_plan(config, 8, 8), []
    refiner = Refiner(backbone, PixelCodec(backbone.device), config, plan)
    refiner(clip(4, 8, 8), Chunk(0, 0, 4), seen.append)
    assert [(info.step, info.num_steps) for info in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [info.t for info in seen] == pytest.approx([0.3, 0.2, 0.1])


def test_the_state_is_as_the_kernels_need_it(
    backbone: MiniBackbone, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of memory, whatever order the codec leaves the frames in."""
    seen = []

    def sample(branches: object, x: Tensor, *_: object) -> Tensor:
        seen.append(x)
        return x

    monkeypatch.setattr(loop, "sample", sample)
    refine(backbone, clip(4, 16, 24))
    assert seen[0].is_contiguous()
