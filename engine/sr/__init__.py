"""Super-resolution models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..bundle.manifest import is_bundle
from ..checkpoint import load_checkpoint, load_config
from ..errors import EngineError
from ..registry import Entry, Registry
from . import mini
from .base import SRFacts, SuperResolver

__all__ = ["KINDS", "SR", "SRFacts", "SuperResolver", "load_sr", "sr_facts"]

SR = Registry(
    "SR model",
    [
        Entry(
            "mini-x2",
            ".sr.mini:load_embedded",
            SRFacts("mini-x2", scale=2, parameters=172_812, macs_per_pixel=172_368, halo=10),
        ),
        Entry(
            "mini-x4",
            ".sr.mini:load_embedded",
            SRFacts("mini-x4", scale=4, parameters=188_400, macs_per_pixel=187_920, halo=10),
        ),
    ],
)

# Who loads the model of a bundle, and who reads its facts.
BUNDLES = Registry(
    "part of a bundle",
    [
        Entry("model", ".bundle.sr:load_sr_of", None),
        Entry("facts", ".bundle.sr:sr_facts_of", None),
    ],
)

# What a weights file may hold: the `kind` in its configuration, who builds it, and its facts.
KINDS = Registry(
    "kind of SR weights", [Entry("mini", ".sr.mini:from_checkpoint", mini.facts_from_config)]
)


def load_sr(
    name_or_path: str | os.PathLike,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SuperResolver:
    """Load a super-resolution model onto a device.

    Parameters
    ----------
    name_or_path : a name of the registry `SR`, the path of a safetensors file written by
        `save_checkpoint`, or the folder of a bundle.
    device : where the network runs; frames may live elsewhere.
    dtype : of the network's arithmetic; the pixels that it corrects stay fp32.  A bundle has its
        own.

    Raises
    ------
    ConfigError : neither a known name nor a path.
    EngineError : the file is absent, damaged, or holds something else.
    """
    name = os.fspath(name_or_path)
    device = torch.device(device)
    if name in SR:
        return SR.get(name).build(name, device, dtype)
    if is_bundle(name):
        return BUNDLES.get("model").build(Path(name), device)
    config, state = load_checkpoint(_path(name))
    return _kind(config, name).build(config, state, name, device, dtype)


def sr_facts(name_or_path: str | os.PathLike) -> SRFacts:
    """The facts of a model without loading its weights; errors as `load_sr`."""
    name = os.fspath(name_or_path)
    if name in SR:
        return SR.get(name).facts
    if is_bundle(name):
        return BUNDLES.get("facts").build(Path(name))
    config = load_config(_path(name))
    return _kind(config, name).facts(config, name)


def _path(name: str) -> str:
    if not (os.path.exists(name) or os.path.dirname(name) or name.endswith(".safetensors")):
        SR.get(name)  # raises, with the names that are known
    return name


def _kind(config: Any, name: str) -> Entry:
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise EngineError(f"{name} holds weights of kind {kind!r}, not of an SR model")
    return KINDS.get(kind)
