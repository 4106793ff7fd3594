"""The stages of `mini`: what a run is conditioned on, and a pass over tiles of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..engine.backbones.base import Bucket
from ..engine.backbones.mini import PHASES, TAGS, MiniBackbone, MiniDiT
from ..engine.bundle.facts import to_json
from ..engine.codecs.patch import BLOCK, COLOURS
from .bucket import check_bucket
from .condition import BRANCHES, OUTPUTS, TIMES, ConditionGraph
from .rotary import FixedRotary, OpenRotary
from .stage import OpenAxis, Stage
from .velocity import INPUTS, OUTPUT, VelocityGraph

# Axes that `velocity_stage` leaves open, with the pixels of a tile in blocks of the transform.
BATCH = OpenAxis("batch", 1, 2, 64)
PIXELS = tuple(
    OpenAxis(name, block, typical, high, block)
    for name, block, typical, high in zip(
        ("frames", "height", "width"), BLOCK, (16, 64, 64), (256, 2048, 2048), strict=True
    )
)
BATCH_AXES = {"x": 0, "t": 0, "modulation": 1, "final": 0, "keys": 1, "values": 1}


def stages(backbone: MiniBackbone, buckets: Sequence[Bucket]) -> Iterator[Stage]:
    """`condition.0`, and a pass for each bucket and number of samples.

    ConfigError where a bucket does not obey the backbone's `multiple_of`.
    """
    for bucket in buckets:
        check_bucket(bucket, backbone.facts)
    yield condition_stage(backbone)
    for bucket in buckets:
        for batch in bucket.batches:
            size = (batch, bucket.frames, bucket.height, bucket.width)
            yield velocity_stage(backbone.network, size)


def model(backbone: MiniBackbone) -> dict[str, Any]:
    """The backbone's part of a manifest, but for where the weights are."""
    return {
        "family": "mini",
        "facts": to_json(backbone.facts),
        "phases": to_json(PHASES),
        "tags": list(TAGS),
        "text_tokens": None,
    }


def condition_stage(backbone: MiniBackbone) -> Stage:
    times = torch.linspace(0, 1, TIMES.typical, device=backbone.device)
    tags = torch.arange(BRANCHES, device=backbone.device)
    graph = ConditionGraph(backbone.network).eval()
    inputs = {"times": times, "tags": tags}
    return Stage("condition.0", graph, inputs, OUTPUTS, {"times": {0: TIMES}})


@torch.no_grad()
def velocity_stage(
    network: MiniDiT, size: tuple[int, int, int, int], dynamic: bool = False
) -> Stage:
    """A pass over `size` (B, T, H, W) in pixels; the sizes are an example where it is dynamic."""
    device = network.mean.device
    batch, *pixels = size
    t = torch.full((batch,), 0.5, device=device)
    rows = torch.zeros(batch, dtype=torch.long, device=device)
    x = torch.zeros(batch, COLOURS, *pixels, device=device)
    inputs = (x, t, *ConditionGraph(network)(t, rows))
    rotary: nn.Module
    if dynamic:
        rotary, name = OpenRotary(network.head_dim, device), "velocity.0"
    else:
        t_, h, w = (side // block for side, block in zip(pixels, BLOCK, strict=True))
        rotary = FixedRotary((t_, h, w), network.head_dim, device)
        name = "velocity.0." + "x".join(map(str, size))
    graph = VelocityGraph(network, rotary).eval()
    named = dict(zip(INPUTS, inputs, strict=True))
    return Stage(name, graph, named, (OUTPUT,), _open_axes() if dynamic else {})


def _open_axes() -> dict[str, dict[int, OpenAxis]]:
    axes = {name: {axis: BATCH} for name, axis in BATCH_AXES.items()}
    axes["x"] |= dict(enumerate(PIXELS, start=2))
    return axes
