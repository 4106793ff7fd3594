"""Wan's transformers as stages, and what a bundle's manifest says of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.backbones.base import BackboneFacts, Bucket
from ..engine.backbones.dit import Conditioning
from ..engine.backbones.wan import WanBackbone
from ..engine.backbones.wan_dit import WanDiT
from ..engine.bundle.facts import to_json
from .bucket import check_bucket
from .condition import BRANCHES, OUTPUTS, TIMES, ConditionGraph
from .rotary import FixedRotary, OpenRotary
from .stage import OpenAxis, Stage

# Axes of x that `velocity_stage` leaves open, in latent cells; their names are those of a tile.
BATCH = OpenAxis("batch", 1, 2, 16)
CELLS = (("frames", 21, 64), ("height", 60, 320), ("width", 104, 320))
BATCH_AXES = {"x": 0, "modulation": 1, "final": 0, "keys": 1, "values": 1}


class VelocityGraph(nn.Module):
    """v of latents x (B, C, t, h, w); keys and values have one row a sample.

    `rotary` gives the tables of a grid of tokens, see `export.rotary`.
    """

    def __init__(self, network: WanDiT, rotary: nn.Module):
        super().__init__()
        self.network, self.rotary = network, rotary

    def forward(
        self, x: Tensor, modulation: Tensor, final: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        grid = _grid(x.shape[2:], self.network)
        pairs = tuple(zip(keys.unbind(0), values.unbind(0), strict=True))
        return self.network(x, Conditioning(modulation, final, pairs), self.rotary(*grid))


def stages(backbone: WanBackbone, buckets: Sequence[Bucket], text_tokens: int) -> Iterator[Stage]:
    """The stages of all experts, one expert after the other.

    An expert is read from the disk when its first stage is asked for; nothing here holds it once
    the stages that have it are dropped and the next expert's are asked for.

    Parameters
    ----------
    buckets : tiles and batches to make a graph of each for.
    text_tokens : L of the text that the networks are conditioned on.

    Raises
    ------
    ConfigError : a bucket does not obey the backbone's `multiple_of`.
    """
    for bucket in buckets:
        check_bucket(bucket, backbone.facts)
    for expert in range(len(backbone.facts.experts)):
        yield from _expert_stages(backbone, expert, buckets, text_tokens)


def _expert_stages(
    backbone: WanBackbone, expert: int, buckets: Sequence[Bucket], text_tokens: int
) -> Iterator[Stage]:
    network = backbone.read_network(expert)
    graph, inputs = ConditionGraph(network).eval(), _condition_inputs(network, text_tokens)
    yield Stage(f"condition.{expert}", graph, inputs, OUTPUTS, {"times": {0: TIMES}})
    for bucket in buckets:
        for batch in bucket.batches:
            size = (batch, bucket.frames, bucket.height, bucket.width)
            yield velocity_stage(backbone.facts, network, expert, size, text_tokens)


def velocity_stage(
    facts: BackboneFacts,
    network: WanDiT,
    expert: int,
    size: tuple[int, int, int, int],
    text_tokens: int,
    dynamic: bool = False,
) -> Stage:
    """A pass over `size` (B, T, H, W) in pixels; the sizes are an example where it is dynamic."""
    batch, frames, height, width = size
    pixels = facts.codec.pixels
    cells = (facts.codec.latent_frames(frames), height // pixels, width // pixels)
    rotary: nn.Module
    if dynamic:
        rotary = OpenRotary(network.head_dim, network.proj_out.weight.device)
        name = f"velocity.{expert}"
    else:
        t, h, w = _grid(cells, network)
        rotary = FixedRotary((t, h, w), network.head_dim, network.proj_out.weight.device)
        name = f"velocity.{expert}." + "x".join(map(str, size))
    inputs = _velocity_inputs(network, (batch, *cells), text_tokens)
    graph = VelocityGraph(network, rotary).eval()
    return Stage(name, graph, inputs, ("v",), _open_axes(network) if dynamic else {})


def _grid(cells: Sequence[int], network: WanDiT) -> tuple[int, ...]:
    return tuple(side // cell for side, cell in zip(cells, network.config.patch, strict=True))


def _open_axes(network: WanDiT) -> dict[str, dict[int, OpenAxis]]:
    axes = {name: {axis: BATCH} for name, axis in BATCH_AXES.items()}
    for axis, (cell, (name, typical, high)) in enumerate(
        zip(network.config.patch, CELLS, strict=True), start=2
    ):
        axes["x"][axis] = OpenAxis(name, cell, typical, high, cell)
    return axes


def model(backbone: WanBackbone, text_tokens: int) -> dict[str, Any]:
    """The backbone's part of a manifest, but for where prompts and weights are."""
    return {
        "family": "wan",
        "facts": to_json(backbone.facts),
        "phases": [[0, 0, 0]],
        "tags": None,
        "text_tokens": text_tokens,
    }


def _condition_inputs(network: WanDiT, text_tokens: int) -> dict[str, Tensor]:
    device = network.proj_out.weight.device
    return {
        "times": torch.linspace(1.0, 0.0, TIMES.typical, device=device),
        "text": torch.zeros(BRANCHES, text_tokens, network.config.text_dim, device=device),
    }


def _velocity_inputs(
    network: WanDiT, size: tuple[int, int, int, int], text_tokens: int
) -> dict[str, Tensor]:
    """Zeros of the shapes and types of a pass; `size` (B, t, h, w) in latent cells."""
    config, weight = network.config, network.proj_out.weight
    batch, *cells = size
    tokens = (config.depth, batch, config.heads, text_tokens, network.head_dim)
    return {
        "x": weight.new_zeros(batch, config.channels, *cells, dtype=torch.float32),
        "modulation": weight.new_zeros(config.depth, batch, 6, config.dim, dtype=torch.float32),
        "final": weight.new_zeros(batch, 2, config.dim, dtype=torch.float32),
        "keys": weight.new_zeros(tokens),
        "values": weight.new_zeros(tokens),
    }
