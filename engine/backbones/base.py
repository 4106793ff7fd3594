"""What a backbone is: facts that can be read unbuilt, and three calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..config import DTG
from ..schedule import Node
from .blocks import Conditioning


@dataclass(frozen=True)
class BackboneFacts:
    """Facts as data: what the planner, the pipeline and `info` need to know.

    Parameters
    ----------
    patch : frames, rows and columns of pixels that make one token.
    multiple_of : (frames, pixels) that chunks and tiles must be multiples of.
    width, depth, ffn_width, context_tokens : size of the transformer, for the cost estimate.
    chunk, overlap, tile, tile_overlap, tile_batch : what the planner takes unless told otherwise.
    defaults : the guidance settings measured to suit it.
    prompt, negative_prompt : what the two branches are conditioned on unless told otherwise.
    """

    name: str
    patch: tuple[int, int, int]
    multiple_of: tuple[int, int]
    parameters: int
    width: int
    depth: int
    ffn_width: int
    context_tokens: int
    chunk: int
    overlap: int
    tile: tuple[int, int]
    tile_overlap: int
    tile_batch: int
    defaults: DTG
    prompt: str
    negative_prompt: str

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a block of pixels, sizes being multiples of the patch."""
        t, h, w = self.patch
        return (frames // t) * (height // h) * (width // w)

    def flops(self, frames: int, height: int, width: int) -> float:
        """Floating-point operations of one evaluation on one tile of that size in pixels."""
        n, d = self.tokens(frames, height, width), self.width
        linear = 4 * d * d + 2 * d * d + 2 * d * self.ffn_width  # self, cross, feed-forward
        attention = 2 * n * d + 2 * self.context_tokens * d
        ends = 2 * 3 * d * self.patch[0] * self.patch[1] * self.patch[2]
        return 2.0 * n * (self.depth * (linear + attention) + ends)


class Context(Protocol):
    """The conditioning of a whole run, prepared once."""

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Conditioning:
        """Conditioning of node `index` for a batch of `repeat` samples of each branch, in order."""
        ...


class Backbone(Protocol):
    """A rectified-flow video model.

    `velocity` returns memory that the caller owns: never a static buffer of the runtime.  Guidance
    calls it twice for one x, and with a shared buffer both branches would be the same tensor.
    """

    facts: BackboneFacts
    device: torch.device

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> Context:
        """Everything that is constant over a clip, for every node of the run."""
        ...

    def velocity(self, x: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """v = eps - x_0 at x (B, C, T, H, W) and times t (B,) in [0, 1]; the shape of x, fp32."""
        ...
