"""Networks as ONNX files, for TensorRT and ONNX Runtime."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from ..engine.backbones.base import Backbone, Bucket
from ..engine.bundle.facts import to_json
from ..engine.sr.base import SuperResolver
from .baked import Run, bake
from .bucket import check_bucket
from .condition import ConditionGraph
from .graph import OPSET, origin, write, writing
from .sr import single_frames, upscale_stage
from .stage import Artefact, Stage
from .stages import conditions, exported, network_of, velocity_stage


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
        "facts": json.dumps(to_json(model.facts)),
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
    expert: int = 0,
    text_tokens: int | None = None,
    dynamic: bool = False,
    baked: Run | None = None,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write the velocity of a backbone.

    The graph serves every step and both branches.  Inputs are `x` (B, C, t, h, w), the state;
    `t` (B,), for mini; `modulation` (depth, B, 6, D), `final` (B, 2, D), `keys` and `values`
    (depth, B, heads, L, head_dim).  All are fp32 but the last two, which have the network's type,
    and so is the output, `v`.  The phase of mini's block grid is a roll outside the graph, see
    `velocity.flatten` and `velocity.unroll`.

    Parameters
    ----------
    backbone : of mini or Wan; its arithmetic keeps the type it has.
    path : file to write; appears complete or not at all.  Weights above 1 GiB lie beside it, in
        `<path>.data`.
    batch : samples of one call: tiles times branches.
    frames, height, width : of a tile in pixels, as the backbone's `multiple_of` and `frame_offset`
        allow.
    expert : which of a model's transformers, in the order of `BackboneFacts.experts`.
    text_tokens : L of text, where it is an input; None: as many as the backbone was trained with.
    dynamic : leave the four sizes open; those given are an example, in which there are two samples
        and two tokens along each axis at least.
    baked : store the conditioning of this run.  Inputs are then `x`, `node` (B,) and `branch` (B,)
        int64: the index of the node, and 0 for the conditional branch or 1 for the other one.
    opset : ONNX opset, 20 to 23.
    overwrite : replace an existing file.

    Raises
    ------
    ConfigError : a size, the expert or the opset is out of range, or the prompts do not suit it.
    EngineError : ONNX is not installed, or the network cannot be exported.
    InputError : `path` cannot be written.
    """
    known, facts = exported(backbone), backbone.facts
    check_bucket(Bucket(frames, height, width, (batch,)), facts)
    network, size = network_of(known, expert), (batch, frames, height, width)
    stage = velocity_stage(facts, network, expert, size, text_tokens, dynamic)
    if baked is not None:
        stage = bake(stage, ConditionGraph(network), baked.nodes, conditions(known, baked))
    sizes = {"batch": batch, "frames": frames, "height": height, "width": width}
    metadata = {
        "kind": "backbone",
        "name": facts.name,
        "facts": json.dumps(to_json(facts)),
        "config": json.dumps(asdict(network.config)),
        "expert": str(expert),
        "shape": json.dumps(sizes | {"dynamic": dynamic}),
    }
    with writing(path, overwrite) as partial:
        dtype = network.patch_embedding.weight.dtype  # the preconditioning is fp32 always
        write(stage, partial, opset, None, metadata | origin(network, dtype))
