import pytest
import torch

from dtg_restore.engine.sr import load_sr
from dtg_restore.engine.sr.frames import FrameSR, split, tiles
from dtg_restore.engine.sr.mini import facts_of

from .conftest import random_net

CPU = torch.device("cpu")


def resolver(tile: int, scale: int = 2) -> FrameSR:
    net = random_net(scale)
    return FrameSR(net, facts_of(net, "random"), CPU, tile)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 3), (5, 40), (33, 47)])
@pytest.mark.parametrize("scale", [2, 4])
def test_any_size(size, scale):
    height, width = size
    frames = torch.rand(2, 3, height, width)
    result = resolver(256, scale).upscale(frames)
    assert result.shape == (2, 3, scale * height, scale * width)
    assert result.dtype == torch.float32
    assert torch.isfinite(result).all()


def test_no_frames():
    assert resolver(256).upscale(torch.rand(0, 3, 8, 8)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "frames",
    [
        torch.rand(3, 8, 8),
        torch.rand(1, 4, 8, 8),
        torch.rand(1, 3, 0, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_bad_frames_are_refused(frames):
    with pytest.raises(ValueError, match="frames must be"):
        resolver(256).upscale(frames)


@pytest.mark.parametrize("name", ["mini-x2", "mini-x4"])
@pytest.mark.parametrize("size", [(1, 1), (23, 37), (40, 52)])
def test_result_is_independent_of_batching(name, size):
    sr = load_sr(name)
    frames = torch.rand(5, 3, *size)
    together = sr.upscale(frames)
    alone = torch.cat([sr.upscale(frame[None]) for frame in frames])
    pairs = torch.cat([sr.upscale(frames[:2]), sr.upscale(frames[2:])])
    permuted = sr.upscale(frames.flip(0)).flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together, pairs)
    assert torch.equal(together, permuted)


def test_result_is_independent_of_memory_layout():
    sr, frames = resolver(256), torch.rand(2, 3, 21, 30)
    strided = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(sr.upscale(frames), sr.upscale(strided))
    assert torch.equal(sr.upscale(frames), sr.upscale(frames.double()))


def test_result_is_new_memory():
    sr, frames = resolver(256), torch.rand(1, 3, 9, 9)
    first = sr.upscale(frames)
    kept = first.clone()
    second = sr.upscale(1 - frames)
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("tile", [5, 16, 33])
def test_tiled_equals_untiled(tile):
    frames = torch.rand(1, 3, 50, 67)
    torch.testing.assert_close(
        resolver(tile).upscale(frames), resolver(1000).upscale(frames), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("name", ["mini-x2", "mini-x4"])
def test_shipped_network_tiled_equals_untiled(name):
    sr = load_sr(name)
    frames = torch.rand(1, 3, 70, 60)
    whole = sr.upscale(frames)
    sr.tile = 32
    torch.testing.assert_close(sr.upscale(frames), whole, atol=1e-5, rtol=0)


def test_halo_is_exactly_the_receptive_field():
    net = random_net()
    halo = facts_of(net, "random").halo
    x = torch.rand(1, 3, 41, 41, requires_grad=True)
    net(x)[..., 40:42, 40:42].sum().backward()
    touched = x.grad[0].abs().sum(0).nonzero() - 20
    assert touched.abs().max() == halo


def test_tiles_cover_the_frame_once():
    count = torch.zeros(50, 67)
    for tile in tiles(50, 67, 16):
        assert tile.height <= 16
        assert tile.width <= 16
        count[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
    assert (count == 1).all()


def test_parts_are_nearly_equal():
    assert list(split(10, 4)) == [(0, 3), (3, 6), (6, 10)]
    assert list(split(4, 4)) == [(0, 4)]
