"""The stages of `mini`: what a run is conditioned on, and a pass over tiles of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..engine.backbones.base import Bucket
from ..engine.backbones.mini import MiniBackbone, MiniDiT
from ..engine.codecs.patch import BLOCK, COLOURS
from ..engine.config import DTG
from .rotary import FixedRotary, OpenRotary
from .stage import OpenAxis, Stage
from .velocity import INPUTS, OUTPUT, VelocityGraph

BRANCHES = 2
OUTPUTS = ("modulation", "final", "keys", "values")  # of `condition`
TIMES = OpenAxis("n", 2, 2 * (DTG().steps + 1), 2 * 1001)  # both branches, up to 1000 steps
# Axes that `velocity_stage` leaves open, with the pixels of a tile in blocks of the transform.
BATCH = OpenAxis("batch", 1, 2, 64)
PIXELS = tuple(
    OpenAxis(name, block, typical, high, block)
    for name, block, typical, high in zip(
        ("frames", "height", "width"), BLOCK, (16, 64, 64), (256, 2048, 2048), strict=True
    )
)
BATCH_AXES = {"x": 0, "t": 0, "modulation": 1, "final": 0, "keys": 1, "values": 1}


class ConditionGraph(nn.Module):
    """`OUTPUTS` of times (n,) and tags (R,), with the keys and values of all layers stacked."""

    def __init__(self, network: MiniDiT):
        super().__init__()
        self.network = network

    def forward(self, times: Tensor, tags: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made = self.network.condition(times, tags)
        keys, values = (torch.stack(parts) for parts in zip(*made.keys_values, strict=True))
        return made.modulation, made.final, keys, values


def stages(backbone: MiniBackbone, buckets: Sequence[Bucket]) -> Iterator[Stage]:
    """`condition.0`, and a pass for each bucket and number of samples."""
    yield condition_stage(backbone)
    for bucket in buckets:
        for batch in bucket.batches:
            yield velocity_stage(backbone, (batch, bucket.frames, bucket.height, bucket.width))


def condition_stage(backbone: MiniBackbone) -> Stage:
    times = torch.linspace(0, 1, TIMES.typical, device=backbone.device)
    tags = torch.arange(BRANCHES, device=backbone.device)
    graph = ConditionGraph(backbone.network).eval()
    inputs = {"times": times, "tags": tags}
    return Stage("condition.0", graph, inputs, OUTPUTS, {"times": {0: TIMES}})


@torch.no_grad()
def velocity_stage(
    backbone: MiniBackbone, size: tuple[int, int, int, int], dynamic: bool = False
) -> Stage:
    """A pass over `size` (B, T, H, W) in pixels; the sizes are an example where it is dynamic."""
    network, device = backbone.network, backbone.device
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
