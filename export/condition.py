"""What a run is conditioned on, as a pure function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engine.backbones.mini import MiniDiT
from ..engine.backbones.wan_dit import WanDiT
from .stage import OpenAxis

OUTPUTS = ("modulation", "final", "keys", "values")
TIMES = OpenAxis("n", 1, 42, 4096)  # both branches at the times of 20 steps, and at their end
BRANCHES = 2


class ConditionGraph(nn.Module):
    """`OUTPUTS` at times (n,) under tags (R,) or text (R, L, C).

    Shapes: modulation (depth, n, 6, D), final (n, 2, D), keys and values (depth, R, heads, L,
    head_dim).
    """

    def __init__(self, network: MiniDiT | WanDiT):
        super().__init__()
        self.network = network

    def forward(self, times: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made = self.network.condition(times, given)
        keys, values = (torch.stack(parts) for parts in zip(*made.keys_values, strict=True))
        return made.modulation, made.final, keys, values
