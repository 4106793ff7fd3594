"""The matrices of the block transform, and what its ops refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import native, patch_blocks, patch_decode, patch_encode

OPPONENT = [
    [1 / math.sqrt(3)] * 3,
    [1 / math.sqrt(2), 0, -1 / math.sqrt(2)],
    [-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)],
]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(k: int, i: int, n: int) -> float:
    """Element of the orthonormal DCT-II."""
    scale = math.sqrt((1 if k == 0 else 2) / n)
    return scale * math.cos(math.pi * (2 * i + 1) * k / (2 * n))


@pytest.mark.parametrize("n", [1, 2, 8, 9])
def test_dct_matrix(n: int) -> None:
    matrix = patch_blocks.dct_matrix(n)
    want = torch.tensor([[cosine(k, i, n) for i in range(n)] for k in range(n)]).double()
    torch.testing.assert_close(matrix, want, rtol=0, atol=1e-7)
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye, rtol=0, atol=1e-14)


def test_opponent_colours() -> None:
    matrix = patch_blocks.opponent_matrix()
    want = torch.tensor(OPPONENT, dtype=torch.float64)
    torch.testing.assert_close(matrix, want, rtol=0, atol=1e-15)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye, rtol=0, atol=1e-15)


def test_matrices_made_in_inference_serve_training() -> None:
    """The cached matrices are shared by both: whichever comes first must not spoil the other."""
    patch_blocks._made.cache_clear()
    with torch.inference_mode():
        patch_encode(torch.zeros(1, 3, 2, 8, 8), implementation="reference")
    z = rand(1, 1, 1, 1, 384).requires_grad_()
    patch_decode(z).square().sum().backward()
    torch.testing.assert_close(z.grad, 2 * z.detach(), rtol=1e-4, atol=1e-5)


def test_gradients_pass_through_both_inputs() -> None:
    """Training goes through the reference, whatever there is besides."""
    z, other = rand(2, 1, 1, 1, 2, 384).unbind(0)
    z.requires_grad_(), other.requires_grad_()
    weights = rand(1, 3, 384, seed=1)
    x = patch_decode(z, (1, 4, 4), other, weights)
    x.square().sum().backward()
    channels = patch_encode(x.detach(), (1, 4, 4))
    torch.testing.assert_close(z.grad, 2 * channels * weights[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.grad, 2 * channels * weights[:, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_double_precision_agrees(implementation: str) -> None:
    """The rounding of float32 against the formula in float64, of all that an op does."""
    if implementation == "native" and native.missing():
        pytest.skip("; ".join(native.missing()))
    x, shift, scale = rand(2, 3, 4, 16, 24), rand(2, 384, seed=1), 1 + 0.1 * rand(2, 384, seed=2)
    phase = (1, 4, 4)
    want = patch_encode(x.double(), phase, shift.double(), scale.double())
    z = patch_encode(x, phase, shift, scale, implementation=implementation)
    torch.testing.assert_close(z.double(), want, rtol=1e-6, atol=2e-6)
    weights = torch.stack((1 / scale, torch.ones_like(scale), shift), 1)
    zero = torch.zeros_like(z)
    back = patch_decode(z, phase, zero, weights, implementation=implementation)
    torch.testing.assert_close(back, x, rtol=0, atol=5e-6)


Z = torch.zeros(2, 1, 1, 1, 384)
X = torch.zeros(2, 3, 2, 8, 8)
ROWS = torch.zeros(2, 384)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patch_encode(X[:, :2]), r"\(B, 3, T, H, W\)"),
        (lambda: patch_encode(X[..., :7]), "multiples of"),
        (lambda: patch_encode(X[:, :, :1]), "multiples of"),
        (lambda: patch_encode(X.int()), "floating-point"),
        (lambda: patch_encode(X, shift=ROWS), "together"),
        (lambda: patch_encode(X, (0, 0, 0), ROWS, ROWS[:, :3]), r"scale must be \(2 or 1, 384\)"),
        (lambda: patch_encode(X, (0, 0, 0), ROWS.double(), ROWS), "shift must .* torch.float64"),
        (lambda: patch_encode(X, (0, 0, 0), ROWS[[0, 0, 0]], ROWS), "shift must be"),
        (lambda: patch_decode(Z[..., :3]), r"\(B, t, h, w, 384\)"),
        (lambda: patch_decode(Z, other=Z), "together"),
        (lambda: patch_decode(Z, (0, 0, 0), Z, ROWS), r"weights must be \(2 or 1, 3, 384\)"),
        (lambda: patch_decode(Z, (0, 0, 0), Z[:1], ROWS[:, None].expand(2, 3, 384)), "other is"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
