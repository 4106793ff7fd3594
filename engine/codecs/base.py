"""What a codec is: facts that can be read unbuilt, and two calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodecFacts:
    """Facts as data.

    Parameters
    ----------
    channels : of the latents.
    frames, pixels : how many frames, and rows or columns, make one latent cell.
    causal : the first latent frame holds one frame alone, so that a clip has `frames * k + 1`.
    parameters : of the network.
    live_values : held at once while decoding, per pixel of a frame or tile; measured.
    """

    name: str
    channels: int
    frames: int
    pixels: int
    causal: bool
    parameters: int = 0
    live_values: float = 0.0

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of that many frames, which must obey the frame rule."""
        return (num_frames - 1) // self.frames + 1 if self.causal else num_frames // self.frames


# What a network remembers of one stream; its keys are the network's own business.
Memory = dict[Any, Tensor]


class Vae(Protocol):
    """The network of a streaming codec: it takes one slice of a clip after the other.

    A new stream begins with an empty `memory`, which the network fills.
    """

    def encode(self, pixels: Tensor, memory: Memory) -> Tensor:
        """Frames (n, 3, H, W) to latent frames (m, C, h, w)."""
        ...

    def decode(self, z: Tensor, memory: Memory) -> Tensor:
        """Latent frames (m, C, h, w) to frames (n, 3, H, W)."""
        ...


class Codec(Protocol):
    """Frames to latents and back, the latents normalised to about zero mean and unit deviation.

    Both ways stream in time: no more than a slice of the frames is on the device at once.
    """

    facts: CodecFacts
    device: torch.device

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1], on any device, to z (1, C, t, h, w) fp32 on ours.

        T must obey the frame rule, H and W be multiples of `facts.pixels`.
        """
        ...

    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """z (1, C, t, h, w) to frames: slices (n, 3, H, W) fp32 in [0, 1], in order of time."""
        ...
