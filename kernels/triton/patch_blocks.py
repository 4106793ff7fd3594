"""What the two kernels of the block transform share."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..patch_blocks import CHANNELS, Phase
from . import interpreted


@triton.jit
def cosines():
    """The orthonormal 8-point DCT-II (8, 8): row k, column n."""
    k = tl.arange(0, 8)[:, None]
    n = tl.arange(0, 8)[None, :]
    # cos(m pi / 16) / 2 by its symmetries: first of a whole turn, then of half a turn.
    m = ((2 * n + 1) * k) % 32
    m = tl.where(m > 16, 32 - m, m)
    sign = tl.where(m > 8, -1.0, 1.0)
    m = tl.where(m > 8, 16 - m, m)
    c = tl.where(m == 1, 0.4903926402016152, 0.35355339059327373)  # of m = 4, and of row 0
    c = tl.where(m == 2, 0.46193976625564337, c)
    c = tl.where(m == 3, 0.4157348061512726, c)
    c = tl.where(m == 5, 0.2777851165098011, c)
    c = tl.where(m == 6, 0.19134171618254492, c)
    return tl.where(m == 7, 0.09754516100806417, c) * sign


@triton.jit
def transform(x, matrix):
    """matrix . x . matrix^T of every (8, 8) of x (tokens, 8, 8)."""
    x = tl.sum(x[:, None, :, :] * matrix[None, :, :, None], axis=2)
    return tl.sum(x[:, :, None, :] * matrix[None, None, :, :], axis=3)


@triton.jit
def tokens_here(total, TOKENS: tl.constexpr):
    """This program's tokens (TOKENS,), and which of them exist; int64 for long clips."""
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    return token, token < total


@triton.jit
def red_places(token, t, h, w, phase_t, phase_y, phase_x, frame, QUADS: tl.constexpr):
    """Where the red pixels of a frame (0 or 1) of each token are, (tokens, 8, 2, 4): rows, and
    columns in two halves.

    QUADS: phase_x is a multiple of 4, so that a half stays together where the grid goes round.
    """
    place = token % (t * h * w)
    line = (place // (h * w) * 2 + frame + phase_t) % (2 * t)
    y = (place // w % h * 8)[:, None, None, None] + tl.arange(0, 8)[None, :, None, None]
    half = (place % w * 2)[:, None, None, None] + tl.arange(0, 2)[None, None, :, None]
    inner = tl.arange(0, 4)[None, None, None, :]
    if QUADS:
        x = (half + phase_x // 4) % (2 * w) * 4 + inner
    else:
        x = (half * 4 + inner + phase_x) % (8 * w)
    line = line[:, None, None, None] * (8 * h) + (y + phase_y) % (8 * h)
    sample = (token // (t * h * w))[:, None, None, None]
    return (sample * (6 * t) * (8 * h) + line) * w * 8 + x


@triton.jit
def channel_places(token, plane):
    """Where the channels of a plane of each token are, (tokens, 8, 8)."""
    inner = tl.arange(0, 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    return token[:, None, None] * 384 + plane * 64 + inner[None]


@triton.jit
def row_places(token, tokens_per_sample, stride, plane):
    """Where the values for a plane are in rows of one value a channel, one a sample."""
    inner = tl.arange(0, 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    return (token // tokens_per_sample * stride)[:, None, None] + plane * 64 + inner[None]


def launch(x: Tensor, phase: Phase) -> tuple[tuple[int], dict[str, Any]]:
    """The grid, and what both kernels are given besides their tensors; x are the pixels."""
    batch, _, frames, height, width = x.shape
    total = x.numel() // CHANNELS
    together = 1 << (-(-total // 8) - 1).bit_length() if interpreted() else 8
    inside = [p % side for p, side in zip(phase, x.shape[2:], strict=True)]
    sizes = {"total": total, "colour": frames * height * width}
    sizes |= {"t": frames // 2, "h": height // 8, "w": width // 8}
    phases = dict(zip(("phase_t", "phase_y", "phase_x"), inside, strict=True))
    constants = {"TOKENS": together, "QUADS": inside[2] % 4 == 0, "num_warps": 4}
    return (triton.cdiv(total, together),), sizes | phases | constants
