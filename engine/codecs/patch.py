"""The `patch` transform: a lossless, orthonormal block transform in the place of a learned codec.

    z = M6 . blocks(x) . D64^T

Blocks of 2 frames x 8 x 8 pixels go through an orthonormal DCT in time and space (`D64` is the
8 x 8 DCT as one matrix, `M6` the Kronecker product of the opponent colours and the 2-point DCT).
The transform is orthonormal, so white noise stays white and a velocity in pixels is a velocity in
latents: the sampler's state may live in either domain.

The grid of blocks can be shifted by a `phase`, cyclically, so that no shape changes.  A sampler
that shifts it from step to step leaves no block edges behind.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

BLOCK = (2, 8, 8)  # frames, rows, columns
COLOURS = 3
CHANNELS = COLOURS * BLOCK[0] * BLOCK[1] * BLOCK[2]  # 384

Phase = tuple[int, int, int]


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of size n, (n, n) float64; row k is the k-th frequency."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def opponent_matrix() -> Tensor:
    """Orthonormal colours: grey, red - blue, and green against both; (3, 3) float64."""
    rows = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


@cache
@torch.inference_mode(False)  # a cached inference tensor would refuse to take part in training
def _matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    colour_time = torch.kron(opponent_matrix(), dct_matrix(BLOCK[0]))  # (6, 6)
    space = torch.kron(dct_matrix(BLOCK[1]), dct_matrix(BLOCK[2]))  # (64, 64)
    return colour_time.to(device, dtype), space.to(device, dtype)


def encode(x: Tensor, phase: Phase = (0, 0, 0)) -> Tensor:
    """Pixels (B, 3, T, H, W) to latent tokens (B, T/2, H/8, W/8, 384).

    T, H and W must be multiples of the block.  `phase` moves the grid of blocks by that many
    frames, rows and columns.
    """
    colour_time, space = _matrices(x.device, x.dtype)
    batch, _, frames, height, width = x.shape
    t, h, w = frames // BLOCK[0], height // BLOCK[1], width // BLOCK[2]
    if any(phase):
        x = x.roll([-p for p in phase], dims=(2, 3, 4))
    x = x.reshape(batch, COLOURS, t, BLOCK[0], h, BLOCK[1], w, BLOCK[2])
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, t, h, w, 6, 64)
    return (colour_time @ (x @ space.T)).flatten(-2)


def decode(z: Tensor, phase: Phase = (0, 0, 0)) -> Tensor:
    """The inverse of `encode`: tokens (B, t, h, w, 384) to pixels (B, 3, 2t, 8h, 8w)."""
    colour_time, space = _matrices(z.device, z.dtype)
    batch, t, h, w, _ = z.shape
    x = colour_time.T @ z.unflatten(-1, (6, 64)) @ space
    x = x.reshape(batch, t, h, w, COLOURS, *BLOCK).permute(0, 4, 1, 5, 2, 6, 3, 7)
    x = x.reshape(batch, COLOURS, t * BLOCK[0], h * BLOCK[1], w * BLOCK[2])
    return x.roll(list(phase), dims=(2, 3, 4)) if any(phase) else x
