"""The codec of backbones whose state is pixels: a change of range and layout, nothing else."""

from __future__ import annotations

from torch import Tensor


def encode(frames: Tensor) -> Tensor:
    """Frames (T, 3, H, W) in [0, 1] to z (1, 3, T, H, W) in [-1, 1]."""
    return (frames.transpose(0, 1) * 2 - 1)[None]


def decode(z: Tensor) -> Tensor:
    """z (1, 3, T, H, W) to frames (T, 3, H, W), clamped to [0, 1]."""
    return ((z[0].transpose(0, 1) + 1) / 2).clamp(0, 1)
