"""The network that a bundle was made of, for shapes that it has no engine for."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..backbones.locate import locate
from ..backbones.wan import Part as WanPart
from ..backbones.wan import WanBackbone
from ..config import RestoreConfig
from ..errors import EngineError
from .context import Part
from .hashes import source_sha256
from .opened import OpenedBundle

logger = logging.getLogger("dtg_restore")


class Fallback:
    """Evaluates the eager network, which is read when it is first needed."""

    def __init__(self, bundle: OpenedBundle, config: RestoreConfig):
        self._bundle, self._config = bundle, config

    def __call__(self, x: Tensor, t: Tensor, part: Part) -> Tensor:
        """See `Backbone.velocity`; EngineError where the weights are not what they were."""
        network, condition = self._network, part.conditioning()
        if isinstance(network, WanBackbone):
            expert = network.network(part.expert)
            return network.velocity(x, t, (WanPart(expert, len(x), condition),))
        return network.velocity(x, t, condition)

    @cached_property
    def _network(self) -> Backbone:
        folder, source = self._bundle.folder, self._bundle.manifest.models["backbone"]["source"]
        path = Path(source["path"])
        if not path.exists():
            raise EngineError(
                f"{folder} has no engine for this shape, and the weights that it was made of are "
                f"not at {path}"
            )
        if source_sha256(path) != source["sha256"]:
            raise EngineError(
                f"{folder} has no engine for this shape, and {path} is not what it was made of any "
                "more: its SHA-256 differs"
            )
        # The tables that the compiled condition makes have the type of the network.
        keys = self._bundle.manifest.components["condition.0"].outputs["keys"]
        dtype: torch.dtype = getattr(torch, keys.dtype)
        family = locate(str(path)).load()
        return family.backbone(path, self._config, self._bundle.device, dtype)
