"""What comes into the linear layers of a network while it restores real clips.

A product in fp8 needs to know, before it runs, how large its input gets: one scale for all of it.
The eager engine restores clips with its own schedule, so that both branches are seen at the times
that they are used at, and the largest magnitude at each layer is kept.  The largest, not a
percentile: e4m3 has 18 octaves, so that a scale which leaves room for outliers costs nothing, and
clipping them gains nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from ..engine.backbones.blocks import Linear
from ..engine.backbones.dit import DiT
from ..engine.errors import ConfigError, EngineError
from ..engine.media import open_reader
from ..engine.restorer import Restorer
from ..engine.runtimes.graph import GraphBackbone
from .graph import weights_sha256

logger = logging.getLogger("dtg_restore")

FRAMES = 32  # of every clip


@dataclass(frozen=True)
class Calibration:
    """`amax`: identity of a network -> name of a linear layer, such as "blocks.0.attn1.to_q" -> the
    largest magnitude of its input."""

    amax: dict[str, dict[str, float]]

    def of(self, network: DiT) -> dict[str, float]:
        """EngineError where it was made with other weights, or in another precision."""
        try:
            return self.amax[identity(network)]
        except KeyError:
            raise EngineError(
                "the calibration is of another network, or of this one in another precision"
            ) from None


def calibrate(
    restorer: Restorer, clips: Sequence[str | os.PathLike[str]], frames: int = FRAMES
) -> Calibration:
    """Restore the first frames of clips, and keep what came into the linear layers.

    Parameters
    ----------
    restorer : with the settings that the engine will be used with, and weights in the precision
        that they will be exported in.  It runs eagerly, without super-resolution.
    clips : see `media.open_reader`; of the kind that will be restored, distortions included.
    frames : of every clip, at least a chunk to see what is seen later.

    Raises
    ------
    ConfigError : no clip is named.
    EngineError : the network is none of ours, its matrices are quantised already, or values in it
        are not finite.
    InputError : a clip cannot be read.
    """
    if not clips:
        raise ConfigError("a calibration needs at least one clip")
    if restorer.device.type == "cpu":
        logger.warning(
            "fp8 is multiplied by GPUs of compute capability 8.9 and above: a CPU emulates it, "
            "which is slower than fp32"
        )
    backbone = restorer.backbone
    if isinstance(backbone, GraphBackbone):  # a replay calls no layer
        backbone = backbone.plain
    eager = replace(restorer, backbone=backbone, sr=None)
    with Recorder() as recorder:
        for clip in clips:
            with open_reader(clip, 0, frames) as reader:
                for _ in eager.stream(reader):
                    pass
    amax = {
        network: {layer: value.item() for layer, value in found.items()}
        for network, found in recorder.amax.items()
    }
    if not any(amax.values()):
        name = None if backbone is None else backbone.facts.name
        raise EngineError(f"{name} has no linear layers that can be calibrated")
    for layer, value in chain.from_iterable(found.items() for found in amax.values()):
        if not isfinite(value):
            raise EngineError(f"what comes into {layer} is not finite: {value}")
    return Calibration(amax)


def identity(network: DiT) -> str:
    """What tells networks apart: their output layer, which every training step changes."""
    return weights_sha256(network.proj_out)


class Recorder:
    """While it is open, every pass of a `DiT` leaves the largest input of its blocks' layers.

    Those layers alone that a pass calls: what is computed once a run, modulation, keys and values
    of the prompt, is not a pass.
    """

    def __init__(self) -> None:
        self.amax: dict[str, dict[str, Tensor]] = {}
        self._identities: dict[int, str] = {}
        self._layers: dict[int, str] = {}  # of the pass that is under way
        self._found: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Recorder:
        self._handles = [
            hooks.register_module_forward_pre_hook(self._before),
            hooks.register_module_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, DiT):
            if id(module) not in self._identities:
                self._identities[id(module)] = identity(module)
            self._found = self.amax.setdefault(self._identities[id(module)], {})
            self._layers = {id(layer): name for name, layer in linear_layers(module).items()}
        elif name := self._layers.get(id(module)):
            peak = inputs[0].abs().amax().float()
            known = self._found.get(name)
            self._found[name] = peak if known is None else torch.maximum(known, peak)

    def _after(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        if isinstance(module, DiT):
            self._layers = {}


def linear_layers(network: DiT) -> dict[str, Linear]:
    """The linear layers inside the blocks, by name: nearly all of the arithmetic.

    Patch embedding and output projection, which are small and whose errors reach every token, are
    not among them.
    """
    return {
        f"blocks.{name}": layer
        for name, layer in network.blocks.named_modules()
        if isinstance(layer, Linear)
    }
