"""What this machine and this installation have, as plain data."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

# Module -> (distribution, how to get it).
PACKAGES = {
    "triton": ("triton", "it comes with the GPU builds of torch for Linux"),
    "tensorrt": ("tensorrt", "pip install 'dtg-restore[trt]'"),
    "onnxruntime": ("onnxruntime", "pip install onnxruntime"),
    "flash_attn": ("flash-attn", "pip install 'dtg-restore[flash]'"),
    "xformers": ("xformers", "pip install 'dtg-restore[xformers]'"),
    "sageattention": ("sageattention", "pip install 'dtg-restore[sage]'"),
}
# Runtimes that nothing but a GPU has.
NEEDS_GPU = ("graph", "ort-tensorrt", "tensorrt")


def collect() -> dict[str, Any]:
    from ..engine.backbones import EMBEDDED_MODELS, FAMILIES, facts_of
    from ..engine.report import versions
    from ..engine.runtimes import RUNTIMES
    from ..engine.sr import SR

    return {
        "hardware": hardware(),
        "versions": versions(),
        "backbones": [_model(name, facts_of(name)) for name in EMBEDDED_MODELS],
        "families": [
            _row(entry.name, [], detail=", ".join(entry.classes))
            for entry in FAMILIES.values()
            if entry.classes
        ],
        "sr": [_model(entry.name, entry.facts) | {"scale": entry.facts.scale} for entry in SR],
        "runtimes": [runtime(entry) for entry in RUNTIMES],
        "codecs": codecs(),
        "packages": [package(name) for name in PACKAGES],
        "kernels": kernels(),
    }


def _row(name: str, reasons: list[str], **facts: Any) -> dict[str, Any]:
    return {"name": name, "available": not reasons, "reasons": reasons} | facts


def hardware() -> dict[str, Any]:
    import torch

    from ..engine.devices import fast_products, resolve_device
    from ..engine.memory import memory_size
    from ..engine.report import machine

    gpus = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "device": f"cuda:{index}",
                "name": facts.name,
                "memory_bytes": facts.total_memory,
                "capability": f"{facts.major}.{facts.minor}",
            }
        )
    here = machine(torch.device("cpu"))
    return here | {
        "device": str(resolve_device("auto")),
        "cores": os.cpu_count(),
        "fast_products": fast_products(),
        "memory_bytes": memory_size(torch.device("cpu")),
        "gpus": gpus,
        "gpu_reason": None if gpus else _why_no_gpu(),
    }


def runtime(entry: Any) -> dict[str, Any]:
    import torch

    from ..engine.runtimes import COMPILED
    from ..engine.runtimes.engines import reasons

    found = reasons(entry.name) if entry.name in COMPILED else []
    if entry.name in NEEDS_GPU and not torch.cuda.is_available():
        found.append("it needs a GPU")
    return _row(entry.name, found, detail=entry.facts)


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built without CUDA"
    return "torch has CUDA, but sees no device (is a driver installed?)"


def _model(name: str, facts: Any) -> dict[str, Any]:
    from ..engine.checkpoint import weights_file

    path = weights_file(name)
    reasons = [] if path.is_file() else [f"its weights are not at {path}"]
    detail = f"{path}, {path.stat().st_size / 1e6:.1f} MB" if not reasons else None
    return _row(name, reasons, parameters=facts.parameters, weights=str(path), detail=detail)


def codecs() -> list[dict[str, Any]]:
    import av

    from ..engine.media.encode.encoders import CONTAINERS, ENCODERS

    rows = []
    for name, encoder in ENCODERS.items():
        known = encoder.ffmpeg_name in av.codecs_available
        reasons = [] if known else [f"PyAV is built without {encoder.ffmpeg_name}"]
        suffixes = " ".join(suffix for suffix, (_, held) in CONTAINERS.items() if name in held)
        rows.append(_row(name, reasons, detail=suffixes))
    return rows


def package(module: str) -> dict[str, Any]:
    """Whether an optional package can be imported; it is tried, as many fail only then."""
    distribution, remedy = PACKAGES[module]
    try:
        if find_spec(module) is None:
            return _row(distribution, [f"not installed ({remedy})"])
        import_module(module)
        return _row(distribution, [], detail=version(distribution))
    except PackageNotFoundError:
        return _row(distribution, [], detail="of unknown version")
    except Exception as error:  # whatever a foreign package does at import
        return _row(distribution, [f"it does not import: {type(error).__name__}: {error}"])


def kernels() -> dict[str, Any]:
    from .. import kernels

    try:
        kernels.check_environment()
        problem = None
    except kernels.KernelChoiceError as error:
        problem = str(error)
    return kernels.describe() | {"environment_error": problem}
