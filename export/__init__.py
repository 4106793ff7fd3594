"""The networks as files that other runtimes execute."""

from __future__ import annotations

from .graph import read_metadata, weights_sha256
from .onnx import export_backbone, export_sr

__all__ = ["export_backbone", "export_sr", "read_metadata", "weights_sha256"]
