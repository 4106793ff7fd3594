"""What a backbone is: facts that can be read unbuilt, and two calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..codecs.base import Codec, CodecFacts
from ..config import DTG, RestoreConfig
from ..schedule import Node
from ..text.embeds import PromptSource
from .attention import Attend


class Bucket(NamedTuple):
    """A shape that compiled engines exist for: a tile in frames and pixels, and the numbers of
    samples in one call, in rising order."""

    frames: int
    height: int
    width: int
    batches: tuple[int, ...]


@dataclass(frozen=True)
class BackboneFacts:
    """Facts as data: what the planner, the pipeline and `info` need to know.

    Parameters
    ----------
    codec : between whose latents the backbone's state lives.
    patch : latent frames, rows and columns that make one token.
    width, depth, ffn_width, context_tokens : size of the transformer, for the cost estimate.
    head_dim : of its attention; None where that cannot be steered (`attention`).
    live_channels : values held at once by a pass, per token and channel of the width; measured.
    can_wait : whether weights may wait on the host or be quantised (`offload`, `weights`).
    cycle : nodes of a run after which it cuts x into the same blocks again; 1 where it always does.
    experts : the times from which on each of the transformers is used; they are of one size.
    buckets : the shapes that it is compiled for, the preferred one first; empty: it takes any.
    runtime : what it is compiled for; "eager" where it is not.
    chunk, overlap, tile, tile_overlap, tile_batch : what the planner takes unless told otherwise,
        in frames and pixels.
    defaults : the guidance settings that suit it.
    prompt, negative_prompt : what the two branches are conditioned on unless told otherwise.
    """

    name: str
    codec: CodecFacts
    patch: tuple[int, int, int]
    parameters: int
    width: int
    depth: int
    ffn_width: int
    context_tokens: int
    live_channels: float
    chunk: int
    overlap: int
    tile: tuple[int, int]
    tile_overlap: int
    tile_batch: int
    defaults: DTG
    prompt: str
    negative_prompt: str
    can_wait: bool = False
    cycle: int = 1
    experts: tuple[float, ...] = (0.0,)
    head_dim: int | None = None
    buckets: tuple[Bucket, ...] = ()
    runtime: str = "eager"

    @property
    def multiple_of(self) -> tuple[int, int]:
        """(frames, pixels): chunks have `frames * k + frame_offset`, tiles `pixels * k`."""
        t, h, w = self.patch
        return self.codec.frames * t, self.codec.pixels * max(h, w)

    @property
    def frame_offset(self) -> int:
        """1 where the first latent frame holds one frame alone, else 0."""
        return int(self.codec.causal)

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a block of pixels, its size obeying `multiple_of`."""
        t, h, w = self.patch
        pixels = self.codec.pixels
        return (
            -(-self.codec.latent_frames(frames) // t)
            * (height // pixels // h)
            * (width // pixels // w)
        )

    def flops(self, frames: int, height: int, width: int) -> float:
        """Floating-point operations of one evaluation on one tile of that size in pixels."""
        n, d = self.tokens(frames, height, width), self.width
        linear = 4 * d * d + 2 * d * d + 2 * d * self.ffn_width  # self, cross, feed-forward
        attention = 2 * n * d + 2 * self.context_tokens * d
        t, h, w = self.patch
        ends = 2 * self.codec.channels * d * t * h * w
        return 2.0 * n * (self.depth * (linear + attention) + ends)


class Context(Protocol):
    """The conditioning of a whole run, prepared once."""

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Any:
        """What `velocity` needs at node `index` for `repeat` samples of each branch, in order."""
        ...


class Backbone(Protocol):
    """A rectified-flow video model.

    `velocity` returns memory that the caller owns: never a static buffer of the runtime.  Guidance
    calls it twice for one x, and with a shared buffer both branches would be the same tensor.
    """

    facts: BackboneFacts
    device: torch.device

    @property
    def attend(self) -> Attend | None:
        """What computes attention; None where it cannot be steered."""
        ...

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> Context:
        """Everything that is constant over a clip, for every node of the run."""
        ...

    def on_device(self) -> AbstractContextManager[None]:
        """Within it the weights are where they compute; outside they may wait on the host."""
        ...

    def velocity(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        """v = eps - x_0 at latents x (B, C, t, h, w) and times t (B,) in [0, 1]; fp32, as x.

        `condition` comes from the `Context` that was prepared for the run.
        """
        ...


class Family(Protocol):
    """How models of one kind are read from `path`: a file or a folder, on this machine."""

    def facts(self, path: Path) -> BackboneFacts:
        """From the headers alone; EngineError where the files are not of this family."""
        ...

    def backbone(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> Backbone: ...

    def codec(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> Codec: ...

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        """Where the embeddings of prompts come from; ConfigError where it takes no text."""
        ...
