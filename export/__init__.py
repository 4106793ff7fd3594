"""The networks as files that other runtimes execute."""

from __future__ import annotations

from .graph import read_metadata, weights_sha256
from .onnx import export_backbone, export_sr, to_onnx

__all__ = ["export_backbone", "export_sr", "read_metadata", "to_onnx", "weights_sha256"]
