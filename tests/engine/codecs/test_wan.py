"""The Wan VAE against diffusers' on the same weights, fp32; streaming and tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.codecs.convolution import Direct, MakeConvolution, Traced
from dtg_restore.engine.codecs.wan import WanCodec, load_wan_vae, wan_vae_facts
from dtg_restore.engine.codecs.wan_config import WanVaeConfig
from dtg_restore.engine.errors import ConfigError

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the largest value of the output
SIZES = [  # the VAE, frames, height, width
    ("2.1", 1, 24, 40),
    ("2.1", 9, 24, 40),
    ("2.1", 5, 72, 8),
    ("2.1 deep", 13, 24, 40),
    ("2.2", 1, 32, 48),
    ("2.2", 17, 48, 32),
]

Vae = Callable[[str], Any]  # gives a Pair of conftest.py


def load(folder: Path, tile: tuple[int, int] | None = None) -> WanCodec:
    return load_wan_vae(folder, CPU, torch.float32, tile)


def latents(codec: WanCodec, frames: int, height: int, width: int) -> Tensor:
    torch.manual_seed(frames)
    count, cell = codec.facts.latent_frames(frames), codec.facts.pixels
    return torch.randn(1, codec.facts.channels, count, height // cell, width // cell) / 2


@pytest.mark.parametrize("name, frames, height, width", SIZES)
def test_encodes_as_diffusers_does(
    name: str, frames: int, height: int, width: int, wan_vae: Vae
) -> None:
    pair = wan_vae(name)
    torch.manual_seed(1)
    clip = torch.rand(frames, 3, height, width)
    want = pair.encode(clip)
    got = load(pair.folder).encode(clip)
    assert got.shape == want.shape and got.dtype == torch.float32
    assert (got - want).abs().max() < TOLERANCE * want.abs().max()


@pytest.mark.parametrize("name, frames, height, width", SIZES)
def test_decodes_as_diffusers_does(
    name: str, frames: int, height: int, width: int, wan_vae: Vae
) -> None:
    pair = wan_vae(name)
    codec = load(pair.folder)
    z = latents(codec, frames, height, width)
    want = pair.decode(z)
    slices = list(codec.decode(z))
    assert [len(part) for part in slices] == [1] + [4] * (z.shape[2] - 1)
    got = torch.cat(slices)
    assert got.shape == (frames, 3, height, width) and got.dtype == torch.float32
    assert want.std() > 0.05 and (got - want).abs().max() < TOLERANCE


@pytest.mark.parametrize("form", [Direct, Traced])
@pytest.mark.parametrize("name", ["2.1", "2.2"])
def test_the_forms_for_other_devices_and_for_tracing_agree(
    name: str, form: MakeConvolution, wan_vae: Vae
) -> None:
    pair = wan_vae(name)
    codec = load_wan_vae(pair.folder, CPU, torch.float32, convolution=form)
    z = latents(codec, 9, 32, 48)
    assert (torch.cat(list(codec.decode(z))) - pair.decode(z)).abs().max() < TOLERANCE
    clip = torch.rand(9, 3, 32, 48)
    want = pair.encode(clip)
    assert (codec.encode(clip) - want).abs().max() < TOLERANCE * want.abs().max()


def test_low_precision_stays_near(wan_vae: Vae) -> None:
    pair = wan_vae("2.1")
    codec = load_wan_vae(pair.folder, CPU, torch.bfloat16)
    z = latents(codec, 5, 16, 16)
    got = torch.cat(list(codec.decode(z)))
    assert got.dtype == torch.float32
    assert (got - pair.decode(z)).pow(2).mean().sqrt() < 0.02  # bf16 keeps 8 bits
    e = codec.encode(got)
    assert e.dtype == torch.float32 and torch.isfinite(e).all()


def test_a_slice_sees_nothing_of_the_latents_after_it(wan_vae: Vae) -> None:
    codec = load(wan_vae("2.1").folder)
    z = latents(codec, 9, 16, 16)
    cut = z.clone()
    cut[:, :, 2:] = torch.nan
    for index, (whole, part) in enumerate(zip(codec.decode(z), codec.decode(cut), strict=True)):
        assert torch.equal(whole, part) == (index < 2)


def test_streams_do_not_share_their_memory(wan_vae: Vae) -> None:
    codec = load(wan_vae("2.1").folder)
    z = latents(codec, 9, 16, 16)
    alone = list(codec.decode(z))
    one, other = codec.decode(z), codec.decode(-z)
    first = next(one)
    kept = first.clone()
    next(other)
    assert torch.equal(next(one), alone[1])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", ["2.1", "2.2"])
def test_a_tile_as_large_as_the_frame_changes_no_bit(name: str, wan_vae: Vae) -> None:
    folder = wan_vae(name).folder
    whole = load(folder)
    clip, z = torch.rand(5, 3, 32, 64), latents(whole, 5, 32, 64)
    for tile in ((0, 0), (64, 0), (640, 320)):
        tiled = load(folder, tile)
        assert torch.equal(tiled.encode(clip), whole.encode(clip))
        for one, other in zip(tiled.decode(z), whole.decode(z), strict=True):
            assert torch.equal(one, other)


def test_tiles_are_what_each_would_be_alone(wan_vae: Vae) -> None:
    """Left of the shared columns stands the left tile alone, right of them the right one."""
    folder = wan_vae("2.1").folder
    tiled, whole = load(folder, (32, 16)), load(folder)
    z = latents(whole, 9, 16, 56)  # 7 latent columns: tiles 0..3 and 3..6
    parts = [torch.cat(list(whole.decode(z[..., a : a + 4]))) for a in (0, 3)]
    got = torch.cat(list(tiled.decode(z)))
    torch.testing.assert_close(got[..., :24], parts[0][..., :24])
    torch.testing.assert_close(got[..., 32:], parts[1][..., 8:])
    low, high = torch.minimum(*pair_of(parts)), torch.maximum(*pair_of(parts))
    shared = got[..., 24:32]
    assert ((shared >= low - 1e-5) & (shared <= high + 1e-5)).all()


def pair_of(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    return parts[0][..., 24:], parts[1][..., :8]


class Blocks:
    """A network without borders: means of blocks and back.  Counts the slices of each stream."""

    def encode(self, pixels: Tensor, memory: dict[str, int]) -> Tensor:
        memory["slices"] = memory.get("slices", 0) + 1
        grey = F.avg_pool2d(pixels[-1:], 8).mean(1, keepdim=True)
        return grey.repeat(1, 16, 1, 1) * memory["slices"]

    def decode(self, z: Tensor, memory: dict[str, int]) -> Tensor:
        memory["slices"] = memory.get("slices", 0) + 1
        shown = z[:, :3] * memory["slices"] / 100
        return F.interpolate(shown, scale_factor=8).repeat(
            4 if memory["slices"] > 1 else 1, 1, 1, 1
        )


@pytest.mark.parametrize("tile", [(8, 8), (16, 24), (40, 16), (24, 0)])
def test_weights_of_tiles_sum_to_one_in_every_slice(tile: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = WanVaeConfig()
    whole, tiled = (WanCodec(Blocks(), config, CPU, torch.float32, t) for t in (None, tile))
    clip, z = torch.rand(9, 3, 40, 56), torch.randn(1, 16, 3, 5, 7)
    torch.testing.assert_close(tiled.encode(clip), whole.encode(clip))
    for one, other in zip(tiled.decode(z), whole.decode(z), strict=True):
        torch.testing.assert_close(one, other)


class Given:
    """A network whose latents are known beforehand."""

    def __init__(self, e: Tensor):
        self.e, self.seen = e, []  # (1, C, t, h, w)

    def encode(self, pixels: Tensor, memory: dict[str, int]) -> Tensor:
        memory["at"] = memory.get("at", -1) + 1
        return self.e[:, :, memory["at"]]

    def decode(self, e: Tensor, memory: dict[str, int]) -> Tensor:
        self.seen.append(e)
        return torch.zeros(4 if len(self.seen) > 1 else 1, 3, e.shape[2] * 8, e.shape[3] * 8)


def test_real_latents_are_normalised_by_the_published_statistics(shared_data: Path) -> None:
    """The file holds latents as the diffusion model has them.  One clip need not have the mean and
    deviation of all clips: 0.8 and the band 0.55 to 1.25 hold for it, and exclude latents that were
    normalised once too often or too seldom (deviations 0.2 to 0.7, or 0.8 to 3.4)."""
    path = shared_data / "weights" / "test_latents_wan.pth"
    if not path.is_file():
        pytest.skip(f"test material is absent: {path}")
    z = torch.load(path, map_location="cpu", weights_only=True).float()
    config = WanVaeConfig()
    mean, std = (torch.tensor(v)[None, :, None, None, None] for v in (config.mean, config.std))
    network = Given(z * std + mean)
    codec = WanCodec(network, config, CPU, torch.float32, None)
    got = codec.encode(torch.zeros(61, 3, 320, 512))
    torch.testing.assert_close(got, z, rtol=0, atol=1e-5)
    over = (0, 2, 3, 4)
    assert got.mean(over).abs().max() < 0.8
    assert got.std(over).min() > 0.55 and got.std(over).max() < 1.25
    for _ in codec.decode(z):
        pass
    torch.testing.assert_close(torch.stack(network.seen, dim=2), network.e, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (5, 3, 12, 16), (5, 3, 16, 20)])
def test_frames_that_do_not_fit(shape: tuple[int, ...], wan_vae: Vae) -> None:
    codec = load(wan_vae("2.1").folder)
    with pytest.raises(ConfigError, match=f"{shape[0]} frames of {shape[3]}x{shape[2]}.*4 k \\+ 1"):
        codec.encode(torch.zeros(shape))


def test_facts_need_only_the_configuration(wan_vae: Vae, tmp_path: Path) -> None:
    for name, channels, pixels in (("2.1 deep", 16, 8), ("2.2", 48, 16)):
        config = (wan_vae(name).folder / "config.json").read_text()
        (tmp_path / "config.json").write_text(config)
        facts = wan_vae_facts(tmp_path)
        assert (facts.channels, facts.frames, facts.pixels) == (channels, 4, pixels)
        assert facts.causal and facts.latent_frames(17) == 5
