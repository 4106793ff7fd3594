"""Rotary tables of an exported pass: stored for a grid of tokens, or computed of its size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engine.backbones.blocks import Rope, rope_3d, rope_angles, rope_frequencies


class FixedRotary(nn.Module):
    """Tables of one grid (t, h, w), made beforehand in double precision."""

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int, int], head_dim: int, device: torch.device):
        super().__init__()
        cos, sin = rope_3d(*grid, head_dim, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, t: int, h: int, w: int) -> Rope:
        return self.cos, self.sin


class OpenRotary(nn.Module):
    """Tables of any grid, computed in single precision wherever the graph runs.

    The angles are then exact to 2^-23 of themselves: 1e-5 at the hundredth token of an axis.
    """

    t: Tensor
    h: Tensor
    w: Tensor

    def __init__(self, head_dim: int, device: torch.device):
        super().__init__()
        for name, frequency in zip("thw", rope_frequencies(head_dim), strict=True):
            self.register_buffer(name, frequency.float().to(device), persistent=False)

    def forward(self, t: int, h: int, w: int) -> Rope:
        angles = rope_angles(t, h, w, (self.t, self.h, self.w))
        return angles.cos(), angles.sin()
