"""The registry of backbones."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import ConfigError
from ..registry import Entry, Registry
from .base import Backbone, BackboneFacts
from .facts import MINI

BACKBONES = Registry("backbone", [Entry("mini", ".backbones.mini:load_mini", MINI)])


def facts_of(name: str) -> BackboneFacts:
    """The facts of a backbone by name, or of weights by path, without loading them."""
    if name not in BACKBONES and Path(name).suffix == ".safetensors":
        return MINI
    return BACKBONES.get(name).facts


def load_backbone(name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Load a backbone by its registered name, or `mini` weights of one's own by path.

    ConfigError for an unknown name, EngineError for weights that cannot be used.
    """
    if name not in BACKBONES and Path(name).suffix == ".safetensors":
        return BACKBONES.get("mini").build(device, dtype, path=Path(name))
    if name not in BACKBONES and Path(name).exists():
        raise ConfigError(
            f"{name} is no backbone: a .safetensors file of the mini class is expected"
        )
    return BACKBONES.get(name).build(device, dtype)
