"""The stages of whatever can be exported, and what a bundle's manifest says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..engine.backbones.base import Backbone, Bucket
from ..engine.backbones.mini import MiniBackbone, MiniDiT
from ..engine.backbones.wan import WanBackbone
from ..engine.backbones.wan_dit import WanDiT
from ..engine.errors import ConfigError, EngineError
from . import mini, wan
from .baked import Run
from .sr import sr_stage
from .stage import Stage

__all__ = [
    "backbone_model",
    "backbone_stages",
    "conditions",
    "network_of",
    "sr_stage",
    "velocity_stage",
]

EXPORTED = ("mini", "wan")


def backbone_stages(
    backbone: Backbone, buckets: Sequence[Bucket], text_tokens: int | None = None
) -> Iterator[Stage]:
    """The stages of a backbone, one after the other, so that one at a time takes memory.

    Parameters
    ----------
    buckets : tiles in frames and pixels, each with the numbers of samples of a call.
    text_tokens : of a prompt, where the backbone takes text; None: as many as it was trained with.

    Raises
    ------
    ConfigError : a bucket does not obey the backbone's `multiple_of`.
    EngineError : the backbone has no export; the message lists those that have.
    """
    if isinstance(backbone, MiniBackbone):
        return mini.stages(backbone, buckets)
    if isinstance(backbone, WanBackbone):
        return wan.stages(backbone, buckets, text_tokens or backbone.facts.context_tokens)
    raise _no_export(backbone)


def backbone_model(backbone: Backbone, text_tokens: int | None = None) -> dict[str, Any]:
    """What a manifest says of a backbone, but for where prompts and weights are; arguments and
    errors as `backbone_stages`."""
    if isinstance(backbone, MiniBackbone):
        return mini.model(backbone)
    if isinstance(backbone, WanBackbone):
        return wan.model(backbone, text_tokens or backbone.facts.context_tokens)
    raise _no_export(backbone)


def network_of(backbone: Backbone, expert: int = 0) -> MiniDiT | WanDiT:
    """A transformer of a backbone; ConfigError where it has no such expert, EngineError as
    `backbone_stages`."""
    count = len(backbone.facts.experts)
    if not 0 <= expert < count:
        raise ConfigError(f"expert is {expert}, and {backbone.facts.name} has {count}")
    if isinstance(backbone, MiniBackbone):
        return backbone.network
    if isinstance(backbone, WanBackbone):
        return backbone.read_network(expert)
    raise _no_export(backbone)


def velocity_stage(
    backbone: Backbone,
    network: MiniDiT | WanDiT,
    expert: int,
    size: tuple[int, int, int, int],
    text_tokens: int | None,
    dynamic: bool,
) -> Stage:
    """The pass of one `network_of` a backbone over `size` (B, T, H, W) in pixels."""
    if isinstance(network, WanDiT):
        tokens = text_tokens or backbone.facts.context_tokens
        return wan.velocity_stage(backbone.facts, network, expert, size, tokens, dynamic)
    return mini.velocity_stage(network, size, dynamic)


def conditions(backbone: Backbone, run: Run) -> Tensor:
    """What both branches of a run are conditioned on: tags (2,), or text (2, L, C)."""
    if isinstance(backbone, MiniBackbone):
        return backbone.tags(run.prompt, run.negative_prompt)
    if isinstance(backbone, WanBackbone):
        return backbone.text(run.prompt, run.negative_prompt)
    raise _no_export(backbone)


def _no_export(backbone: Backbone) -> EngineError:
    return EngineError(
        f"{backbone.facts.name} has no export: those that have one are {', '.join(EXPORTED)}"
    )
