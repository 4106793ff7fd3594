"""Networks as ONNX files, for TensorRT and ONNX Runtime."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import torch

from ..engine.backbones.base import Backbone
from ..engine.backbones.mini import MiniBackbone
from ..engine.errors import ConfigError, EngineError
from ..engine.sr.base import SuperResolver
from ..engine.sr.frames import FrameSR
from . import velocity
from .graph import OPSET, origin, save, trace, writing


def export_sr(
    model: SuperResolver,
    path: str | os.PathLike,
    height: int,
    width: int,
    *,
    dynamic: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write a single-frame SR network: `frames` (1, 3, H, W) -> `upscaled` (1, 3, sH, sW), fp32.

    Parameters
    ----------
    model : a `FrameSR`, as `load_sr` returns it; its arithmetic keeps the type it has.
    path : file to write; appears complete or not at all.
    height, width : of the input in pixels.  A static graph takes this size alone, and a smaller
        frame must not be padded up to it: the network pads each layer, not the frame.
    dynamic : leave H and W open; height and width (at least 2) are then an example.
    opset : ONNX opset, 20 to 23.
    overwrite : replace an existing file.

    Raises
    ------
    ConfigError : a size or the opset is out of range.
    EngineError : ONNX is not installed, or the network cannot be exported.
    InputError : `path` cannot be written.
    """
    if not isinstance(model, FrameSR):
        raise EngineError(f"{model.facts.name} is no network that sees single frames: not exported")
    m, smallest = model.facts.multiple_of, 2 if dynamic else 1  # a traced size of 1 stays constant
    if min(height, width) < smallest or height % m or width % m:
        raise ConfigError(
            f"height and width must be multiples of {m}, at least {smallest}: {height} x {width}"
        )
    x = torch.zeros(1, 3, height, width, device=model.device)
    free = ({2: torch.export.Dim("height"), 3: torch.export.Dim("width")},) if dynamic else None
    metadata = {
        "kind": "sr",
        "name": model.facts.name,
        "scale": str(model.facts.scale),
        "facts": json.dumps(asdict(model.facts)),
        "shape": json.dumps({"height": height, "width": width, "dynamic": dynamic}),
    }
    with writing(path, overwrite) as partial:
        proto = trace(model.module, (x,), ("frames",), "upscaled", opset, free)
        dtype = next(model.module.parameters()).dtype
        save(proto, partial, metadata | origin(model.module, dtype))


def export_backbone(
    backbone: Backbone,
    path: str | os.PathLike,
    *,
    batch: int,
    frames: int,
    height: int,
    width: int,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write the velocity of `mini` at one shape; inputs and output as in `velocity.flatten`.

    The graph serves every step and both branches: times, modulation, keys and values are inputs,
    and the phase of the block grid is a roll outside it (`velocity.flatten`, `velocity.unroll`).

    Parameters
    ----------
    backbone : a `MiniBackbone`; its arithmetic keeps the type it has.
    path : file to write; appears complete or not at all.
    batch : samples of one call: tiles times branches.
    frames, height, width : of a tile in pixels, multiples of the backbone's `multiple_of`.
    opset : ONNX opset, 20 to 23.
    overwrite : replace an existing file.

    Raises
    ------
    ConfigError : a size or the opset is out of range.
    EngineError : ONNX is not installed, or the network cannot be exported.
    InputError : `path` cannot be written.
    """
    if not isinstance(backbone, MiniBackbone):
        raise EngineError(f"{backbone.facts.name} has no export to ONNX")
    m, n = backbone.facts.multiple_of
    sizes = {"batch": batch, "frames": frames, "height": height, "width": width}
    if min(sizes.values()) < 1 or frames % m or height % n or width % n:
        raise ConfigError(
            f"frames must be a multiple of {m}, height and width of {n}, and all above 0: {sizes}"
        )
    network = backbone.network
    metadata = {
        "kind": "backbone",
        "name": backbone.facts.name,
        "facts": json.dumps(asdict(backbone.facts)),
        "config": json.dumps(network.describe()),
        "shape": json.dumps(sizes),
    }
    with writing(path, overwrite) as partial:
        inputs = velocity.example(backbone, (batch, frames, height, width))
        graph = velocity.VelocityGraph(network).eval()
        proto = trace(graph, inputs, velocity.INPUTS, velocity.OUTPUT, opset)
        dtype = network.patch_embedding.weight.dtype  # the preconditioning is fp32 always
        save(proto, partial, metadata | origin(network, dtype))
