"""The stages of whatever can be exported, and what a bundle's manifest says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..engine.backbones.base import Backbone, Bucket
from ..engine.backbones.mini import PHASES, TAGS, MiniBackbone
from ..engine.backbones.wan import TEXT_TOKENS, WanBackbone
from ..engine.errors import EngineError
from . import mini, wan
from .sr import sr_stage
from .stage import Stage

__all__ = ["backbone_model", "backbone_stages", "no_export", "sr_stage"]

EXPORTED = ("mini", "wan")


def backbone_stages(
    backbone: Backbone, buckets: Sequence[Bucket], text_tokens: int | None = None
) -> Iterator[Stage]:
    """The stages of a backbone, one after the other, so that one at a time takes memory.

    Parameters
    ----------
    buckets : tiles in frames and pixels, each with the numbers of samples of a call.
    text_tokens : of a prompt, where the backbone takes text.

    Raises
    ------
    EngineError : the backbone has no export; the message lists those that have.
    """
    if isinstance(backbone, MiniBackbone):
        return mini.stages(backbone, buckets)
    if isinstance(backbone, WanBackbone):
        return wan.stages(backbone, buckets, text_tokens or TEXT_TOKENS)
    raise no_export(backbone)


def backbone_model(backbone: Backbone, text_tokens: int | None = None) -> dict[str, Any]:
    """What a manifest says of a backbone; parameters and errors as those of `backbone_stages`."""
    if isinstance(backbone, MiniBackbone):
        return {
            "family": "mini",
            "phases": [list(phase) for phase in PHASES],
            "tags": list(TAGS),
            "text_tokens": None,
        }
    if isinstance(backbone, WanBackbone):
        return wan.model(backbone, text_tokens or TEXT_TOKENS)
    raise no_export(backbone)


def no_export(backbone: Backbone) -> EngineError:
    return EngineError(
        f"{backbone.facts.name} has no export: those that have one are {', '.join(EXPORTED)}"
    )
