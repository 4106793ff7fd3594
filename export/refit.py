"""Other weights for plans of TensorRT, without building them again: a LoRA, or a new training."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..engine.bundle.hashes import file_facts, file_sha256
from ..engine.bundle.manifest import Component, Manifest, read_manifest, write_manifest
from ..engine.errors import ConfigError, EngineError
from ..engine.runtimes.tensorrt import failure, library, read_plan, refit_plan
from .graph import writing


def refit(plan: Path, onnx: Path, target: Path, device: torch.device) -> None:
    """Write the plan with the weights of the graph in the file `onnx` to `target`.

    The graph is the plan's own but for its weights: the same stage of the same model, exported
    again.  `target` may be `plan`; it appears complete or not at all, and can be refitted again.

    Raises
    ------
    EngineError : the plan was not built with `refit`, or the weights are not its own by name and
        size.
    InputError : `target` cannot be written.
    """
    with torch.cuda.device(device):
        engine = read_plan(plan)
        refit_plan(engine, onnx)
        with writing(target, overwrite=True) as partial:
            partial.write_bytes(_serialized(engine))


def refit_component(folder: Path, name: str, onnx: Path, device: torch.device) -> Manifest:
    """Give a component of the bundle in `folder` other weights, and return the new manifest.

    The bundle has another key then, as it computes something else.  Its files are replaced one by
    one, the manifest last: what is broken off in between does not pass for a whole bundle.  `onnx`
    as for `refit`, with weights that lie beside it.

    Raises
    ------
    ConfigError : the bundle has no such component.
    EngineError : as `refit`, or the bundle is not of TensorRT.
    """
    manifest = read_manifest(folder)
    if name not in manifest.components:
        raise ConfigError(f"{folder} has {', '.join(manifest.components)}, not {name!r}")
    if manifest.runtime != "tensorrt":
        raise EngineError(f"{folder} is made for {manifest.runtime}, and tensorrt alone can refit")
    component = manifest.components[name]
    if len(component.files) == 1:
        refit(folder / component.files[0], onnx, folder / component.files[0], device)
    else:
        _replace_graph(folder, component, onnx, device)
    manifest = _changed(manifest, folder, name, file_sha256(onnx))
    write_manifest(folder, manifest)
    return manifest


def _replace_graph(folder: Path, component: Component, onnx: Path, device: torch.device) -> None:
    """A plan without weights stays as it is: the graph beside it has them."""
    names = component.files[1:]
    if absent := [file for file in names if not (onnx.parent / file).is_file()]:
        raise EngineError(f"{onnx.parent} lacks {', '.join(absent)}, which the plan is opened with")
    with torch.cuda.device(device):
        refit_plan(read_plan(folder / component.files[0]), onnx)
    for file in names:
        with writing(folder / file, overwrite=True) as partial:
            shutil.copyfile(onnx.parent / file, partial)


def _serialized(engine: Any) -> Any:
    trt = library()
    config = engine.create_serialization_config()
    if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):  # not in the first versions of 10
        config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    data = engine.serialize_with_config(config)
    if data is None:
        raise failure("TensorRT cannot write the refitted plan")
    return data


def _changed(manifest: Manifest, folder: Path, name: str, onnx_sha256: str) -> Manifest:
    component = replace(manifest.components[name], onnx_sha256=onnx_sha256)
    files = {file: file_facts(folder / file) for file in component.files}
    key = hashlib.sha256(f"{manifest.key} {name} {onnx_sha256}".encode()).hexdigest()
    return replace(
        manifest,
        key=key,
        components=manifest.components | {name: component},
        files=manifest.files | files,
    )
