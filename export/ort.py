"""ONNX files as ONNX Runtime reads them fastest: with the passes over the graph done beforehand.

What depends on the processor (the layout of convolutions) is left to be done when the file is
opened, so that it can be opened on any.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..engine.runtimes.base import Component
from ..engine.runtimes.ort import open_session, provider_options, session_options
from .stage import Artefact

WEIGHTS_BESIDE = "session.optimized_model_external_initializers_file_name"


def to_ort(artefact: Artefact, folder: Path, device: torch.device) -> Artefact:
    """Replace the ONNX file of `artefact` in `folder` by the optimised graph, for `device`.

    Its fused ops are those of ONNX Runtime, and of the provider of the device.  EngineError where
    ONNX Runtime has no such provider, or cannot read the file.
    """
    options = session_options(device.type)
    import onnxruntime

    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    component = Component(artefact.files, artefact.inputs, artefact.outputs)
    providers = provider_options(device.type, component, device, stream)
    graph, *weights = artefact.files
    with TemporaryDirectory(dir=folder, prefix=".ort.") as place:
        options.optimized_model_filepath = str(Path(place) / graph)
        for name in weights:  # or what changed in them would be written into the graph
            options.add_session_config_entry(WEIGHTS_BESIDE, name)
        open_session(folder / graph, options, providers)
        for name in artefact.files:
            os.replace(Path(place) / name, folder / name)
    return artefact
