"""A tiny codec for the latents of Wan, for previews: the TAEHV networks.

The layout is that of the public files `taew2_1` and `taew2_2` (github.com/madebyollin/taehv).  They
take and make latents as the diffusion model has them, normalised already.

A clip of 4 k + 1 frames is continued by its last frame to a multiple of 4 for the encoder; of the
decoder's frames, 4 for each latent frame, the first 3 are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, EngineError
from ..shards import Shape, Shards, check_keys, load_into
from .base import CodecFacts, Memory, Vae
from .weights import open_weights

GROUP = 4  # frames of a latent frame
WIDTH = 64  # channels of the encoder
WIDTHS = (256, 128, 64, 64)  # of the decoder, from the latents on
POOLS = (2, 2, 1)  # frames that become one at each level of the encoder ...
GROWS = (1, 2, 2)  # ... and that one becomes at each level of the decoder


def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


class Squash(nn.Module):
    """Latents to (-3, 3), smoothly."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemoryBlock(nn.Module):
    """A residual block that sees every frame together with the one before."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            *(conv(2 * width, width), nn.ReLU(inplace=True)),
            *(conv(width, width), nn.ReLU(inplace=True), conv(width, width)),
        )

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        first = memory.get(self)
        past = torch.cat([torch.zeros_like(x[:1]) if first is None else first, x[:-1]])
        memory[self] = x[-1:].clone()
        return F.relu(self.conv(torch.cat([x, past], dim=1)) + x, inplace=True)


class Pool(nn.Module):
    """`frames` of them to one."""

    def __init__(self, width: int, frames: int):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(width * frames, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unflatten(0, (-1, self.frames)).flatten(1, 2))


class Grow(nn.Module):
    """One frame to `frames` of them."""

    def __init__(self, width: int, frames: int):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(width, width * frames, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (self.frames, -1)).flatten(0, 1)


class TinyVae(nn.Module):
    """Encoder and decoder as chains; the places in them are the keys of the files."""

    def __init__(self, channels: int, patch: int):
        super().__init__()
        self.patch = patch
        down: list[nn.Module] = [conv(3 * patch**2, WIDTH), nn.ReLU(inplace=True)]
        for frames in POOLS:
            down += [Pool(WIDTH, frames), conv(WIDTH, WIDTH, stride=2, bias=False)]
            down += [MemoryBlock(WIDTH) for _ in range(3)]
        self.encoder = nn.ModuleList([*down, conv(WIDTH, channels)])
        up: list[nn.Module] = [Squash(), conv(channels, WIDTHS[0]), nn.ReLU(inplace=True)]
        for frames, width, narrower in zip(GROWS, WIDTHS, WIDTHS[1:], strict=False):
            up += [MemoryBlock(width) for _ in range(3)]
            up += [nn.Upsample(scale_factor=2), Grow(width, frames)]
            up += [conv(width, narrower, bias=False)]
        up += [nn.ReLU(inplace=True), conv(WIDTHS[-1], 3 * patch**2)]
        self.decoder = nn.ModuleList(up)

    def encode(self, frames: Tensor, memory: Memory) -> Tensor:
        """Frames (4 n, 3, H, W) in [0, 1] to latent frames (n, C, h, w)."""
        return _through(self.encoder, F.pixel_unshuffle(frames, self.patch), memory)

    def decode(self, z: Tensor, memory: Memory) -> Tensor:
        """Latent frames (n, C, h, w) to frames (4 n, 3, H, W), not clamped."""
        return F.pixel_shuffle(_through(self.decoder, z, memory), self.patch)


def _through(chain: nn.ModuleList, x: Tensor, memory: Memory) -> Tensor:
    for layer in chain:
        x = layer(x, memory) if isinstance(layer, MemoryBlock) else layer(x)
    return x


def load_tiny(path: Path, device: torch.device, dtype: torch.dtype) -> TinyCodec:
    """The codec in `path`, a .safetensors or .pth file in the layout of `taew2_1` or `taew2_2`.

    EngineError where the file is absent, damaged or of another layout: keys are named.
    """
    shards = open_weights(path)
    channels, patch = _sizes(shards)
    with torch.device("meta"):
        vae = TinyVae(channels, patch)
    own = {key: tuple(tensor.shape) for key, tensor in vae.state_dict().items()}
    check_keys(shards, vae, str, _larger(shards, own))

    def place(key: str, tensor: Tensor) -> Tensor:
        return tensor[-own[key][0] :].to(device, dtype)  # the last of the frames that it grows

    load_into(vae, shards, str, place)
    facts = CodecFacts("tiny", channels, GROUP, patch * 2 ** len(POOLS), causal=True)
    return TinyCodec(vae.eval(), facts, device, dtype)


def _sizes(shards: Shards) -> tuple[int, int]:
    """Latent channels, and pixels that are folded into channels per side."""
    last, first = (shards.shapes.get(f"{key}.weight", ()) for key in ("encoder.17", "encoder.0"))
    if len(last) != 4 or len(first) != 4 or first[1] not in (3, 12):
        raise EngineError(f"{shards.source} has not the layout of taew2_1: encoder.0 to encoder.17")
    return last[0], 1 if first[1] == 3 else 2


def _larger(shards: Shards, own: dict[str, Shape]) -> dict[str, Shape]:
    """Layers on disk that make more frames than the network uses, as published files have."""
    return {
        key: (2 * shape[0], *shape[1:])
        for key, shape in own.items()
        if key == "decoder.7.conv.weight" and shards.shapes.get(key) == (2 * shape[0], *shape[1:])
    }


class TinyCodec:
    """See `engine.codecs.base.Codec`."""

    def __init__(self, vae: Vae, facts: CodecFacts, device: torch.device, dtype: torch.dtype):
        self.facts, self.device, self.vae, self._dtype = facts, device, vae, dtype

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (4 k + 1, 3, H, W) in [0, 1], on any device, to z (1, C, k + 1, h, w) fp32."""
        count, _, height, width = frames.shape
        if count % GROUP != 1 or height % self.facts.pixels or width % self.facts.pixels:
            raise ConfigError(
                f"{count} frames of {width}x{height} pixels: the tiny codec takes {GROUP} k + 1 "
                f"frames with sides that are multiples of {self.facts.pixels}"
            )
        memory: Memory = {}
        latents = []
        for start in range(0, count, GROUP):
            part = frames[start : start + GROUP].to(self.device, self._dtype)
            last = part[-1:].expand(GROUP - len(part), -1, -1, -1)
            latents.append(self.vae.encode(torch.cat([part, last]), memory).float())
        return torch.cat(latents).transpose(0, 1)[None]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """z (1, C, t, h, w) to slices (n, 3, H, W) fp32 in [0, 1]: 1 frame, then groups of 4."""
        memory: Memory = {}
        for index in range(z.shape[2]):
            part = z[:, :, index].to(self.device, self._dtype)
            frames = self.vae.decode(part, memory)[0 if index else GROUP - 1 :]
            yield frames.float().clamp_(0, 1)
