"""The key of a bundle: SHA-256 over all that can change what it computes or where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__
from ..engine.bundle.hashes import engine_sources_sha256, file_sha256
from ..engine.bundle.manifest import FORMAT
from ..engine.media.paths import is_sequence_input, list_sequence
from ..engine.text.embeds import Embeds
from .recipe import Recipe
from .request import TENSORRT_ONLY

# What makes the files, and what executes them.
LIBRARIES = {
    "onnx": ("torch", "onnx", "onnxscript"),
    "ort": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "aot": ("torch", "triton"),
    "tensorrt": ("torch", "onnx", "onnxscript", "tensorrt"),
}


def key_of(recipe: Recipe) -> str:
    request = recipe.request
    content = {
        "format": FORMAT,
        "package": [__version__, engine_sources_sha256()],
        "libraries": {name: _version(name) for name in LIBRARIES[request.to]},
        "needs": recipe.needs,
        "sources": {name: source.sha256 for name, source in recipe.sources.items()},
        "to": request.to,
        "device": recipe.device.type,
        "precision": recipe.precision,
        "opset": recipe.opset,
        "backbone": None if recipe.facts is None else asdict(recipe.facts),
        "codec_tile": recipe.codec_tile,
        "prompts": recipe.prompts and [_embeds(part) for part in recipe.prompts],
        "calibrate": request.calibrate and _clip(request.calibrate),
        "tensorrt": [getattr(request, name) for name in TENSORRT_ONLY],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _embeds(embeds: Embeds) -> dict[str, Sequence[Any]]:
    return {
        name: [
            str(tensor.dtype),
            list(tensor.shape),
            hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest(),
        ]
        for name, tensor in embeds.items()
    }


def _clip(path: str) -> list[str]:
    files = [file for _, file in list_sequence(path)] if is_sequence_input(path) else [path]
    return [file_sha256(file) for file in files]
