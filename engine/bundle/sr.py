"""A bundle's super-resolution model."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import torch
from torch import Tensor, nn

from ..errors import EngineError
from ..runtimes.base import Engine
from ..sr.base import SRFacts, SuperResolver
from ..sr.frames import FrameSR
from .facts import sr_facts
from .manifest import Manifest, read_manifest
from .opened import open_bundle


class EngineModule(nn.Module):
    """An engine as the module that it was made of.

    Runs in several threads, each on a stream of its own, may share it, and an engine takes one call
    at a time.
    """

    def __init__(self, engine: Engine):
        super().__init__()
        self._engine, self._turn = engine, Lock()
        self._last: torch.cuda.Event | None = None

    def forward(self, frames: Tensor) -> Tensor:
        with self._turn:
            stream = torch.cuda.current_stream(frames.device) if frames.is_cuda else None
            if stream is not None and self._last is not None:
                stream.wait_event(self._last)
            upscaled = self._engine({"frames": frames})["upscaled"]
            if stream is not None:
                self._last = stream.record_event()
        return upscaled


def load_sr_of(folder: Path, device: torch.device) -> SuperResolver:
    """The model in the bundle; EngineError where it holds none, or is damaged or does not fit."""
    bundle = open_bundle(folder, device)
    facts = _facts(bundle.manifest, folder)
    return FrameSR(EngineModule(bundle.engines["upscale"]), facts, device)


def sr_facts_of(folder: Path) -> SRFacts:
    """From the manifest alone; errors as `load_sr_of`."""
    return _facts(read_manifest(folder), folder)


def _facts(manifest: Manifest, folder: Path) -> SRFacts:
    model = manifest.models.get("sr")
    if model is None:
        raise EngineError(f"{folder} holds no SR model")
    return sr_facts(model["facts"])
