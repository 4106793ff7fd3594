"""The pretrained video models, by name or by path."""

from __future__ import annotations

import torch

from ..codecs.base import Codec
from ..config import RestoreConfig
from .base import Backbone, BackboneFacts
from .locate import EMBEDDED_MODELS, FAMILIES, locate

__all__ = ["EMBEDDED_MODELS", "FAMILIES", "facts_of", "load_backbone", "load_codec", "locate"]


def facts_of(name: str) -> BackboneFacts:
    """The facts of a backbone by name or by path, without loading its weights.

    Errors as those of `load_backbone`.
    """
    found = locate(name)
    return found.load().facts(found.path)


def load_backbone(config: RestoreConfig, device: torch.device, dtype: torch.dtype) -> Backbone:
    """The backbone that `config` names.

    ConfigError for an unknown name, EngineError for weights that cannot be used.
    """
    found = locate(config.backbone)
    return found.load().backbone(found.path, config, device, dtype)


def load_codec(config: RestoreConfig, device: torch.device, dtype: torch.dtype) -> Codec:
    """The codec of the backbone that `config` names; errors as those of `load_backbone`."""
    found = locate(config.backbone)
    return found.load().codec(found.path, config, device, dtype)
