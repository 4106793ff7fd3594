"""Wan's transformers as stages, and what a bundle's manifest says of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.backbones.base import BackboneFacts, Bucket
from ..engine.backbones.blocks import rope_3d
from ..engine.backbones.dit import Conditioning
from ..engine.backbones.wan import WanBackbone
from ..engine.backbones.wan_dit import WanDiT
from ..engine.errors import ConfigError
from .stage import OpenAxis, Stage

CONDITION = ("modulation", "final", "keys", "values")
TIMES = OpenAxis("n", 1, 42, 4096)  # both branches at the times of 20 steps, and at their end


class ConditionGraph(nn.Module):
    """`CONDITION` at times (n,) under text (R, L, C)."""

    def __init__(self, network: WanDiT):
        super().__init__()
        self.network = network

    def forward(self, times: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        made = self.network.condition(times, text)
        keys, values = (torch.stack(parts) for parts in zip(*made.keys_values, strict=True))
        return made.modulation, made.final, keys, values


class VelocityGraph(nn.Module):
    """v of latents x (B, C, t, h, w); keys and values have one row a sample.

    The rotary tables of the one size that it takes are constants.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, network: WanDiT, size: tuple[int, int, int]):
        super().__init__()
        self.network = network
        grid = [side // cell for side, cell in zip(size, network.config.patch, strict=True)]
        cos, sin = rope_3d(
            grid[0], grid[1], grid[2], network.head_dim, network.proj_out.weight.device
        )
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(
        self, x: Tensor, modulation: Tensor, final: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        pairs = tuple(zip(keys.unbind(0), values.unbind(0), strict=True))
        return self.network(x, Conditioning(modulation, final, pairs), (self.cos, self.sin))


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
        _check(bucket, backbone.facts)
    for expert in range(len(backbone.facts.experts)):
        yield from _expert_stages(backbone, expert, buckets, text_tokens)


def _expert_stages(
    backbone: WanBackbone, expert: int, buckets: Sequence[Bucket], text_tokens: int
) -> Iterator[Stage]:
    network, codec = backbone.read_network(expert), backbone.facts.codec
    graph, inputs = ConditionGraph(network).eval(), _condition_inputs(network, text_tokens)
    yield Stage(f"condition.{expert}", graph, inputs, CONDITION, {"times": {0: TIMES}})
    for bucket in buckets:
        size = (
            codec.latent_frames(bucket.frames),
            bucket.height // codec.pixels,
            bucket.width // codec.pixels,
        )
        velocity = VelocityGraph(network, size).eval()
        for batch in bucket.batches:
            name = f"velocity.{expert}.{batch}x{bucket.frames}x{bucket.height}x{bucket.width}"
            inputs = _velocity_inputs(network, (batch, *size), text_tokens)
            yield Stage(name, velocity, inputs, ("v",))


def model(backbone: WanBackbone, text_tokens: int) -> dict[str, Any]:
    """The backbone's part of a manifest, but for where prompts and weights are."""
    return {
        "family": "wan",
        "facts": asdict(backbone.facts),
        "phases": [[0, 0, 0]],
        "tags": None,
        "text_tokens": text_tokens,
    }


def _check(bucket: Bucket, facts: BackboneFacts) -> None:
    m, n = facts.multiple_of
    frames, height, width, batches = bucket
    fits = frames > 0 and frames % m == facts.frame_offset % m and not (height % n or width % n)
    if not fits or min(height, width, *batches) < 1:
        raise ConfigError(
            f"{frames} frames of {width}x{height} pixels in batches of {batches}: wan takes "
            f"{m} k + {facts.frame_offset} frames with sides that are multiples of {n}"
        )


def _condition_inputs(network: WanDiT, text_tokens: int) -> dict[str, Tensor]:
    device = network.proj_out.weight.device
    return {
        "times": torch.linspace(1.0, 0.0, TIMES.typical, device=device),
        "text": torch.zeros(2, text_tokens, network.config.text_dim, device=device),
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
