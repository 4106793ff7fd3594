"""The stages of whatever can be exported, and what a bundle's manifest says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from ..engine.backbones.base import Backbone, BackboneFacts, Bucket
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
    "exported",
    "network_of",
    "sr_stage",
    "velocity_stage",
]

EXPORTED = ("mini", "wan")
Exported: TypeAlias = MiniBackbone | WanBackbone


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
    known = exported(backbone)
    if isinstance(known, WanBackbone):
        return wan.stages(known, buckets, text_tokens or known.facts.context_tokens)
    return mini.stages(known, buckets)


def backbone_model(backbone: Backbone, text_tokens: int | None = None) -> dict[str, Any]:
    """What a manifest says of a backbone, but for where prompts and weights are; arguments and
    errors as `backbone_stages`."""
    known = exported(backbone)
    if isinstance(known, WanBackbone):
        return wan.model(known, text_tokens or known.facts.context_tokens)
    return mini.model(known)


def exported(backbone: Backbone) -> Exported:
    """The backbone, if it has an export; else EngineError."""
    if isinstance(backbone, (MiniBackbone, WanBackbone)):
        return backbone
    raise EngineError(
        f"{backbone.facts.name} has no export: those that have one are {', '.join(EXPORTED)}"
    )


def network_of(backbone: Exported, expert: int) -> MiniDiT | WanDiT:
    """A transformer of a backbone; ConfigError where it has no such expert."""
    count = len(backbone.facts.experts)
    if not 0 <= expert < count:
        raise ConfigError(f"expert is {expert}, and {backbone.facts.name} has {count}")
    return backbone.read_network(expert) if isinstance(backbone, WanBackbone) else backbone.network


def velocity_stage(
    facts: BackboneFacts,
    network: MiniDiT | WanDiT,
    expert: int,
    size: tuple[int, int, int, int],
    text_tokens: int | None,
    dynamic: bool,
) -> Stage:
    """The pass of a `network_of` over `size` (B, T, H, W) in pixels."""
    if isinstance(network, WanDiT):
        tokens = text_tokens or facts.context_tokens
        return wan.velocity_stage(facts, network, expert, size, tokens, dynamic)
    return mini.velocity_stage(network, size, dynamic)


def conditions(backbone: Exported, run: Run) -> Tensor:
    """What both branches of a run are conditioned on: tags (2,), or text (2, L, C)."""
    prompts = run.prompt, run.negative_prompt
    return backbone.text(*prompts) if isinstance(backbone, WanBackbone) else backbone.tags(*prompts)
