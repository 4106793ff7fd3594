"""The networks as files that other runtimes execute, and bundles of them.

The public names are loaded when they are first used: requests are checked without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baked import Run
    from .build import build_bundle
    from .graph import read_metadata, weights_sha256
    from .onnx import export_backbone, export_sr, to_onnx
    from .refit import refit_component
    from .request import ExportRequest

_HOME = {
    "ExportRequest": ".request",
    "Run": ".baked",
    "build_bundle": ".build",
    "export_backbone": ".onnx",
    "export_sr": ".onnx",
    "read_metadata": ".graph",
    "refit_component": ".refit",
    "to_onnx": ".onnx",
    "weights_sha256": ".graph",
}

__all__ = [
    "ExportRequest",
    "Run",
    "build_bundle",
    "export_backbone",
    "export_sr",
    "read_metadata",
    "refit_component",
    "to_onnx",
    "weights_sha256",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value
