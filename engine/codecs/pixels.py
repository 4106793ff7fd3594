"""The codec of backbones whose state is pixels: a change of range and layout, nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import CodecFacts

PIXELS = CodecFacts("pixels", channels=3, frames=1, pixels=1, causal=False)


class PixelCodec:
    facts = PIXELS

    def __init__(self, device: torch.device):
        self.device = device

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1] to z (1, 3, T, H, W) in [-1, 1]."""
        frames = frames.to(self.device, torch.float32)
        return (frames.transpose(0, 1) * 2 - 1)[None]

    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """z (1, 3, T, H, W) to frames (T, 3, H, W), clamped to [0, 1], in one slice."""
        yield ((z[0].transpose(0, 1) + 1) / 2).clamp(0, 1)
