"""`mini`'s velocity as a pure function of tensors: one graph for every step and both branches.

Whatever differs between calls is an input: the state, the times, and the conditioning, which the
engine computes once outside the loop.  Only the phase cannot be one, as a shift by a tensor would
be a gather with dynamic indices.  It need not be in the graph either: it is a roll of the pixels
before the transform and back after it, so with the roll P

    v(x, t, phase) = P v_0(P^-1 x, t)

exactly, bit for bit.  `flatten` applies P^-1 and `unroll` applies P, and the graph is v_0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engine.backbones.dit import Conditioning
from ..engine.backbones.mini import MiniDiT
from ..engine.codecs.patch import BLOCK, Phase

INPUTS = ("x", "t", "modulation", "final", "keys", "values")
OUTPUT = "v"
PIXEL_AXES = (2, 3, 4)  # of (B, C, T, H, W)


class VelocityGraph(nn.Module):
    """v_0 (B, 3, T, H, W) of `INPUTS`; keys and values of all layers are stacked.

    `rotary` gives the tables of a grid of tokens, see `export.rotary`.
    """

    def __init__(self, network: MiniDiT, rotary: nn.Module):
        super().__init__()
        self.network, self.rotary = network, rotary

    def forward(
        self, x: Tensor, t: Tensor, modulation: Tensor, final: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        grid = (size // block for size, block in zip(x.shape[2:], BLOCK, strict=True))
        pairs = tuple(zip(keys.unbind(0), values.unbind(0), strict=True))
        return self.network(x, t, Conditioning(modulation, final, pairs), self.rotary(*grid))


def flatten(x: Tensor, t: Tensor, condition: Conditioning) -> dict[str, Tensor]:
    """The inputs of the graph by name, for a call `velocity(x, t, condition)` of the backbone.

    Shapes: x (B, 3, T, H, W), rolled by -phase; t (B,); modulation (depth, B, 6, D); final
    (B, 2, D); keys and values (depth, B, heads, L, head_dim).  A conditioning of batch 1 is
    repeated for all of B.
    """
    batch = x.shape[0]
    keys, values = (torch.stack(parts) for parts in zip(*condition.keys_values, strict=True))
    return {
        "x": x.roll([-p for p in condition.phase], dims=PIXEL_AXES),
        "t": t,
        "modulation": condition.modulation.expand(-1, batch, -1, -1),
        "final": condition.final.expand(batch, -1, -1),
        "keys": keys.repeat_interleave(batch // keys.shape[1], 1),
        "values": values.repeat_interleave(batch // values.shape[1], 1),
    }


def unroll(v: Tensor, phase: Phase) -> Tensor:
    """The graph's output where the pixels are; new memory, as a backbone must return."""
    return v.roll(list(phase), dims=PIXEL_AXES)
