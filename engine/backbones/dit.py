"""The Wan class of transformer: what `mini` and Wan share.

The modulation, the keys and values of the condition tokens and the rotary tables are inputs of a
pass: they are constant over a clip and are computed once, outside the sampling loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block, KeyValue, Linear, Rope, layernorm_modulate, random_rows, rope_3d

BRANCHES = ("cond", "uncond")


class Conditioning(NamedTuple):
    """Everything that a forward pass needs besides x and t, ready to use.

    `modulation` is (depth, B, 6, D) and `final` (B, 2, D), fp32; B may be 1.  `keys_values` has one
    pair a layer, (R, heads, L, head_dim) each: R rows of consecutive samples share a row.  `phase`
    is the shift of the block grid, where a backbone has one.
    """

    modulation: Tensor
    final: Tensor
    keys_values: tuple[KeyValue, ...]
    phase: tuple[int, int, int] = (0, 0, 0)


class Table(NamedTuple):
    """The conditioning of every node of a run, for one network.

    `modulation` (depth, branches, nodes, 6, D), `final` (branches, nodes, 2, D), `keys_values` one
    pair a layer, (branches, heads, L, head_dim) each.
    """

    modulation: Tensor
    final: Tensor
    keys_values: tuple[KeyValue, ...]

    def at(
        self, index: int, rows: slice, repeat: int, phase: tuple[int, int, int] = (0, 0, 0)
    ) -> Conditioning:
        """That of node `index` for `repeat` samples of each branch of `rows`; views but for the
        small modulation."""
        return Conditioning(
            self.modulation[:, rows, index].repeat_interleave(repeat, 1),
            self.final[rows, index].repeat_interleave(repeat, 0),
            tuple((key[rows], value[rows]) for key, value in self.keys_values),
            phase,
        )


def rows_of(branches: Sequence[str]) -> slice:
    """The rows of a `Table` for branches that a run asks for, which are neighbours and in order."""
    return slice(BRANCHES.index(branches[0]), BRANCHES.index(branches[-1]) + 1)


class DiT(nn.Module):
    """Token embedding, blocks and output projection; parameters are named as Wan's are."""

    def __init__(
        self, channels_in: int, channels_out: int, dim: int, depth: int, heads: int, ffn_dim: int
    ):
        super().__init__()
        self.head_dim = dim // heads
        self.patch_embedding = Linear(channels_in, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, ffn_dim) for _ in range(depth))
        # Where the weights wait on the host, these two bring them.
        self.fetched: Iterable[Any] | None = None
        self.on_device: Callable[[], AbstractContextManager[None]] = nullcontext
        self.scale_shift_table = nn.Parameter(random_rows(1, 2, dim))
        self.proj_out = Linear(dim, channels_out)

    @property
    def sequence(self) -> Iterable[Any]:
        """The blocks in order, each with its weights on the device while it is the one."""
        return self.blocks if self.fetched is None else self.fetched

    def constants(
        self, embedding: Tensor, shared: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, tuple[KeyValue, ...]]:
        """What a run needs of every layer, as the first three of `Conditioning`.

        `embedding` (n, D) and `shared` (n, 6, D) are what n times make, `tokens` (R, L, D) what the
        conditions are made of.
        """
        modulation, keys_values = [], []
        for block in self.sequence:
            modulation.append(block.scale_shift_table.float() + shared)
            keys_values.append(block.attn2.keys_values(tokens))
        final = self.scale_shift_table.float() + embedding[:, None]
        return torch.stack(modulation), final, tuple(keys_values)

    def tokens(
        self,
        z: Tensor,
        grid: tuple[int, int, int],
        condition: Conditioning,
        rope: Rope | None = None,
    ) -> Tensor:
        """Tokens z (B, N, C_in), N a grid of (t, h, w), to (B, N, C_out), fp32.

        `rope` are the grid's rotary tables, for callers that hold them.
        """
        rope = rope or rope_3d(*grid, self.head_dim, z.device)
        x = self.patch_embedding(z.to(self.patch_embedding.weight.dtype))  # (B, N, D)
        for block, modulation, keys_values in zip(
            self.sequence,
            condition.modulation,
            condition.keys_values,
            strict=True,
        ):
            x = block(x, modulation, rope, keys_values)
        shift, scale = condition.final.unbind(1)
        return self.proj_out(layernorm_modulate(x, scale, shift)).float()


def timestep_embedding(t: Tensor, dim: int, scale: float = 1000.0) -> Tensor:
    """Sinusoids of scale * t, cosines first; t (B,) to (B, dim), fp32."""
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=t.device))
    angles = scale * t.float()[:, None] * frequency
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def embed_time(
    t: Tensor, frequency_dim: int, linear_1: nn.Linear, linear_2: nn.Linear, time_proj: nn.Linear
) -> tuple[Tensor, Tensor]:
    """t (n,) to the embedding (n, D) and the modulation shared by all blocks (n, 6, D).

    In fp32 whatever the weights are: it is done once, and every block depends on it.
    """
    y = _linear(timestep_embedding(t, frequency_dim), linear_1)
    y = _linear(F.silu(y), linear_2)
    return y, _linear(F.silu(y), time_proj).unflatten(-1, (6, -1))


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight.float(), layer.bias.float())
