"""Networks as ONNX files, for TensorRT and ONNX Runtime."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from ..engine.backbones.base import Backbone
from ..engine.backbones.mini import MiniBackbone
from ..engine.errors import ConfigError
from ..engine.sr.base import SuperResolver
from . import mini
from .graph import OPSET, origin, write, writing
from .sr import single_frames, upscale_stage
from .stage import Artefact, Stage
from .stages import no_export


def to_onnx(
    stage: Stage, folder: Path, opset: int = OPSET, *, external: bool | None = None
) -> Artefact:
    """Write a stage as `<name>.onnx`, checked; a file of that name is replaced.

    The same stage gives the same bytes, on any machine with the same versions of torch and
    onnxscript.

    Parameters
    ----------
    opset : ONNX opset, 20 to 23.
    external : whether the weights lie beside the graph, in `<name>.onnx.data`; None: where they
        exceed 1 GiB.

    Raises
    ------
    ConfigError : the opset is out of range.
    EngineError : ONNX is not installed, or the stage cannot be exported.
    """
    path = folder / f"{stage.name}.onnx"
    return write(stage, path, opset, external, {"component": stage.name})


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
    model = single_frames(model)
    stage = upscale_stage(model, height, width, dynamic)
    metadata = {
        "kind": "sr",
        "name": model.facts.name,
        "scale": str(model.facts.scale),
        "facts": json.dumps(asdict(model.facts)),
        "shape": json.dumps({"height": height, "width": width, "dynamic": dynamic}),
    }
    with writing(path, overwrite) as partial:
        dtype = next(model.module.parameters()).dtype
        write(stage, partial, opset, None, metadata | origin(model.module, dtype))


def export_backbone(
    backbone: Backbone,
    path: str | os.PathLike,
    *,
    batch: int,
    frames: int,
    height: int,
    width: int,
    dynamic: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write the velocity of a backbone; inputs and output as in `velocity.flatten`.

    The graph serves every step and both branches: times, modulation, keys and values are inputs,
    and the phase of the block grid is a roll outside it (`velocity.flatten`, `velocity.unroll`).

    Parameters
    ----------
    backbone : a `MiniBackbone`; its arithmetic keeps the type it has.
    path : file to write; appears complete or not at all.
    batch : samples of one call: tiles times branches.
    frames, height, width : of a tile in pixels, multiples of the backbone's `multiple_of`.
    dynamic : leave all four open, at least 2 of the samples and the blocks of each side; they are
        then an example.
    opset : ONNX opset, 20 to 23.
    overwrite : replace an existing file.

    Raises
    ------
    ConfigError : a size or the opset is out of range.
    EngineError : ONNX is not installed, or the network cannot be exported.
    InputError : `path` cannot be written.
    """
    if not isinstance(backbone, MiniBackbone):
        raise no_export(backbone)
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
        "shape": json.dumps(sizes | {"dynamic": dynamic}),
    }
    stage = mini.velocity_stage(backbone, (batch, frames, height, width), dynamic)
    with writing(path, overwrite) as partial:
        dtype = network.patch_embedding.weight.dtype  # the preconditioning is fp32 always
        write(stage, partial, opset, None, metadata | origin(network, dtype))
