"""Bundles as a family of backbones."""

from __future__ import annotations

from pathlib import Path

import torch

from ..backbones.base import BackboneFacts
from ..codecs.base import Codec
from ..config import RestoreConfig
from ..errors import ConfigError, EngineError
from ..text.embeds import PromptSource
from .backbone import BundleBackbone, facts_in
from .codec import bundle_codec
from .manifest import read_manifest
from .opened import open_bundle


class BundleFamily:
    """Folders with a manifest.  Their dtype is their own."""

    def facts(self, path: Path) -> BackboneFacts:
        return facts_in(read_manifest(path))

    def backbone(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> BundleBackbone:
        return BundleBackbone(open_bundle(path, device, config.runtime), config)

    def codec(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> Codec:
        bundle = open_bundle(path, device, config.runtime)
        model = bundle.manifest.models.get("codec")
        if model is None:
            raise EngineError(f"{path} holds no codec: export it again")
        return bundle_codec(model, bundle.engines, device)

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        raise ConfigError(
            f"{path} has no text encoder: embed prompts with the model that it was made of"
        )


FAMILY = BundleFamily()
