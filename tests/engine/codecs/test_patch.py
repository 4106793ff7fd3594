"""The patch transform is orthonormal, so it is lossless and leaves white noise white."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.codecs import patch
from dtg_restore.engine.codecs.pixels import PixelCodec

PHASES = list(itertools.product((0, 1), (0, 3, 4, 7), (0, 1, 4)))
OPPONENT = [
    [1 / math.sqrt(3)] * 3,
    [1 / math.sqrt(2), 0, -1 / math.sqrt(2)],
    [-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)],
]


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def cosine(k: int, i: int, n: int) -> float:
    """Element of the orthonormal DCT-II."""
    scale = math.sqrt((1 if k == 0 else 2) / n)
    return scale * math.cos(math.pi * (2 * i + 1) * k / (2 * n))


def test_gram_matrix_is_the_identity() -> None:
    """Every unit pixel of a block goes to a unit vector, orthogonal to the others."""
    basis = torch.eye(patch.CHANNELS, dtype=torch.float64).reshape(-1, patch.COLOURS, *patch.BLOCK)
    z = patch.encode(basis).reshape(patch.CHANNELS, patch.CHANNELS)
    eye = torch.eye(patch.CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(z @ z.T, eye, rtol=0, atol=1e-12)


def test_against_an_explicit_transform() -> None:
    """Each coefficient as the sum over the block that defines it, in the order of channels
    (colour, frequency in time, in y, in x)."""
    x = rand(2, 3, 4, 16, 24, dtype=torch.float64)
    z = patch.encode(x)
    assert z.shape == (2, 2, 2, 3, 384)
    for b, t, h, w in ((0, 0, 0, 0), (1, 1, 1, 2), (0, 1, 0, 1)):
        block = x[b, :, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8]
        for c, kt, ky, kx in ((0, 0, 0, 0), (1, 1, 0, 3), (2, 0, 7, 2), (0, 1, 5, 7)):
            want = sum(
                OPPONENT[c][rgb]
                * cosine(kt, i, 2)
                * cosine(ky, y, 8)
                * cosine(kx, x_, 8)
                * block[rgb, i, y, x_].item()
                for rgb, i, y, x_ in itertools.product(range(3), range(2), range(8), range(8))
            )
            channel = ((c * 2 + kt) * 8 + ky) * 8 + kx
            assert z[b, t, h, w, channel].item() == pytest.approx(want, abs=1e-10)


def test_against_scipy() -> None:
    fft = pytest.importorskip("scipy.fft")
    x = rand(1, 3, 2, 8, 8, dtype=torch.float64)
    frequencies = torch.from_numpy(fft.dctn(x[0].numpy(), axes=(1, 2, 3), norm="ortho"))
    want = torch.einsum("cr,rtyx->ctyx", torch.tensor(OPPONENT, dtype=torch.float64), frequencies)
    got = patch.encode(x).reshape(3, 2, 8, 8)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("phase", PHASES)
def test_lossless_in_every_phase(phase: patch.Phase) -> None:
    x = rand(2, 3, 6, 16, 40)
    z = patch.encode(x, phase)
    torch.testing.assert_close(patch.decode(z, phase), x, rtol=0, atol=1e-5)
    torch.testing.assert_close(patch.encode(patch.decode(z, phase), phase), z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("phase", [(1, 0, 0), (0, 3, 0), (0, 0, 5), (1, 4, 4)])
def test_phase_moves_the_grid(phase: patch.Phase) -> None:
    """A block that starts at the phase becomes token (0, 0, 0) whole."""
    x = rand(1, 3, 4, 24, 24, dtype=torch.float64)
    t, y, x_ = phase
    block = x[:, :, t : t + 2, y : y + 8, x_ : x_ + 8]
    moved = patch.encode(x, phase)
    torch.testing.assert_close(moved[:, :1, :1, :1], patch.encode(block), rtol=0, atol=1e-12)
    assert not torch.allclose(moved, patch.encode(x), atol=1e-2)


def test_white_noise_stays_white() -> None:
    """Over 1344 tokens, mean 0, variance 1 and no correlation of channels, within 6 sigma."""
    x = rand(4, 3, 6, 56, 128)
    z = patch.encode(x, (1, 4, 4)).flatten(0, 3)  # (N, 384)
    count = len(z)
    assert z.square().sum().item() == pytest.approx(x.square().sum().item(), rel=1e-5)
    covariance = z.T @ z / count
    assert z.mean(0).abs().max() < 6 / count**0.5
    assert (covariance.diagonal() - 1).abs().max() < 6 * (2 / count) ** 0.5
    assert (covariance - covariance.diagonal().diag()).abs().max() < 6 / count**0.5


def test_grey_lives_in_one_channel() -> None:
    """A uniform grey is the mean of three colours times the root of all 128 pixels of a block."""
    z = patch.encode(torch.full((1, 3, 4, 16, 8), 0.25, dtype=torch.float64))
    torch.testing.assert_close(
        z[..., 0], torch.full((1, 2, 2, 1), 0.25 * math.sqrt(3 * 128)).double()
    )
    assert z[..., 1:].abs().max() < 1e-12


def test_result_is_new_memory() -> None:
    x = rand(1, 3, 2, 8, 8)
    before = x.clone()
    z = patch.encode(x)
    patch.decode(z).zero_()
    z.zero_()
    assert torch.equal(x, before)


PIXELS = PixelCodec(torch.device("cpu"))


def test_pixels_range_and_layout() -> None:
    frames = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    z = PIXELS.encode(frames)
    assert z.shape == (1, 3, 5, 4, 6)
    assert z[0, 1, 2, 3, 4] == frames[2, 1, 3, 4] * 2 - 1
    torch.testing.assert_close(next(PIXELS.decode(z)), frames, rtol=0, atol=1e-7)
    ends = PIXELS.encode(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)).flatten()
    assert ends.tolist() == [-1, 0, 1]


def test_pixels_decode_clamps() -> None:
    z = torch.tensor([-1.5, 0.0, 1.5]).view(1, 3, 1, 1, 1)
    assert next(PIXELS.decode(z)).flatten().tolist() == [0.0, 0.5, 1.0]
