"""`mini`: the embedded super-resolution network, a plain stack of 3x3 convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import EMBEDDED, load_checkpoint, load_state
from ..errors import EngineError
from .base import SRFacts, SuperResolver
from .frames import FrameSR

SLOPE = 0.1  # of the leaky rectifier


class MiniSR(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, sH, sW), for any H and W from 1 on.

    `depth` convolutions of `width` channels see the low-resolution grid, the last one predicts
    the s x s sub-pixels as a correction of the nearest pixel:

        y = shuffle(repeat(x) + tail(head(x) + body(head(x))))

    There is no attention, no normalisation and no branch that a compiler would have to keep
    apart, so the network as trained is the network that is exported.
    """

    def __init__(self, scale: int, width: int = 48, depth: int = 8):
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        body = [nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)]
        for conv in body:
            _start_near_identity(conv)
        self.body = nn.ModuleList(body)
        self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    @property
    def halo(self) -> int:
        """Input pixels on each side that an output pixel depends on."""
        return len(self.body) + 2

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-accumulates per input pixel."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Conv2d))

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x.to(self.head.weight.dtype))  # (B, width, H, W)
        first = features = F.leaky_relu(features, SLOPE)
        for conv in self.body:
            features = F.leaky_relu(conv(features), SLOPE)
        correction = self.tail(features + first)  # (B, 3 s s, H, W)
        nearest = x.repeat_interleave(self.scale**2, dim=1)
        # in x's precision: a half-precision network still adds its correction to exact pixels
        return F.pixel_shuffle(nearest + correction.to(x.dtype), self.scale)


@torch.no_grad()
def _start_near_identity(conv: nn.Conv2d) -> None:
    """Identity + small noise: a residual network without the additions at run time."""
    identity = nn.init.dirac_(torch.empty_like(conv.weight))
    conv.weight.mul_(0.5).add_(identity)
    for bias in conv.parameters():
        if bias.ndim == 1:
            nn.init.zeros_(bias)


def facts_of(net: MiniSR, name: str) -> SRFacts:
    parameters = sum(p.numel() for p in net.parameters())
    return SRFacts(name, net.scale, parameters, net.macs_per_pixel, net.halo)


def build(config: dict[str, Any], source: str) -> MiniSR:
    """The untrained network that `config` describes."""
    try:
        return MiniSR(config["scale"], config["width"], config["depth"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"{source} has an unusable configuration {config}: {error!r}") from error


def facts_from_config(config: dict[str, Any], source: str) -> SRFacts:
    return facts_of(build(config, source), Path(source).stem)


def from_checkpoint(
    config: dict[str, Any],
    state: dict[str, Tensor],
    source: str,
    device: torch.device,
    dtype: torch.dtype,
) -> SuperResolver:
    """Build the network that `config` describes and fill it with `state`."""
    net = build(config, source)
    load_state(net, state, source)
    return FrameSR(net.to(dtype), facts_of(net, Path(source).stem), device)


def load_embedded(name: str, device: torch.device, dtype: torch.dtype) -> SuperResolver:
    """The network `name` that ships with the package."""
    path = EMBEDDED / f"{name}.safetensors"
    config, state = load_checkpoint(path)
    return from_checkpoint(config, state, str(path), device, dtype)
