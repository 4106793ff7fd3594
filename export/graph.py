"""From a stage to a checked ONNX file, and what is written beside the graph."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..engine.errors import ConfigError, EngineError
from ..engine.media.atomic import AtomicFile
from ..engine.runtimes.base import TensorSpec
from .stage import Artefact, OpenAxis, Stage

# The lowest opset in which GELU is one op, hence the one that most versions of a runtime read:
# TensorRT documents 9 to 24 for 10.15 and 9 to 25 for 11.  From 23 on attention and RMSNorm are
# single ops, too.
OPSET, NEWEST_OPSET = 20, 23
EXTERNAL = 2**30  # bytes of weights from which on they lie beside the graph; protobuf ends at 2 GiB


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """What `export_sr` and `export_backbone` wrote beside the graph.

    `kind`, `name`, `facts` and `shape` (JSON), `precision`, `weights_sha256`; `scale` for SR,
    `config` (JSON) for a backbone.  EngineError where the file is no ONNX file.
    """
    proto = read_graph(path)
    return {entry.key: entry.value for entry in proto.metadata_props}


def read_graph(path: str | os.PathLike) -> Any:
    """The ModelProto of a file, without weights that lie beside it; EngineError for others."""
    onnx = _require("onnx")
    try:
        return onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's own classes differ between its implementations
        raise EngineError(f"{os.fspath(path)} is no ONNX file: {error}") from error


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of a network's state, in the order of names.

    It is of the network, not of a file, so that it tells whether a graph was made of the weights
    that are loaded, wherever they came from.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def origin(network: nn.Module, dtype: torch.dtype) -> dict[str, str]:
    """The part of the metadata that every graph has."""
    precision = str(dtype).removeprefix("torch.")
    return {"precision": precision, "weights_sha256": weights_sha256(network)}


def write(
    stage: Stage, path: Path, opset: int, external: bool | None, metadata: Mapping[str, str]
) -> Artefact:
    """The stage as the file `path`, checked; see `onnx.to_onnx`."""
    onnx = _require("onnx")
    program = _trace(stage, opset)
    data_file(path).unlink(missing_ok=True)
    program.save(path, external_data=_is_large(stage.module) if external is None else external)
    proto = read_graph(path)
    _strip(proto)
    _name_axes(proto, stage)
    proto.producer_name, proto.producer_version = "dtg-restore", __version__
    onnx.helper.set_model_props(proto, dict(metadata))
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return checked(path)


def checked(path: Path) -> Artefact:
    """The graph that lies at `path`; EngineError where it is no valid ONNX."""
    onnx = _require("onnx")
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"the exported graph is not valid ONNX: {error}") from error
    graph, data = read_graph(path).graph, data_file(path)
    files = (path.name, data.name) if data.exists() else (path.name,)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Artefact(files, _specs(graph.input), _specs(graph.output), digest)


def data_file(path: Path) -> Path:
    """Where the weights of a graph lie, if not in it."""
    return path.with_name(path.name + ".data")


def _trace(stage: Stage, opset: int) -> Any:
    """The stage as an ONNXProgram of torch."""
    if not OPSET <= opset <= NEWEST_OPSET:
        raise ConfigError(f"opset must be in {OPSET} .. {NEWEST_OPSET}, not {opset}")
    _require("onnxscript")  # the exporter of torch is built on it
    # Copies, as inputs that are one tensor in the example would be one in the graph.
    examples = tuple(tensor.clone() for tensor in stage.inputs.values())
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                stage.module,
                examples,
                dynamo=True,
                opset_version=opset,
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamic_shapes=dynamic_shapes(stage),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise EngineError(f"torch cannot export this network to ONNX: {error}") from error
    assert program is not None  # None is the answer of the old exporter
    return program


def dynamic_shapes(stage: Stage) -> tuple[dict[int, Any], ...] | None:
    """The open axes of each input in the form of `torch.export`; None where there are none."""
    if not stage.open_axes:
        return None
    dims: dict[str, Any] = {}
    for name, axes in stage.open_axes.items():
        for place, axis in axes.items():
            _check_example(axis, stage.inputs[name].shape[place])
            dims[axis.name] = _dim(axis)
    return tuple(
        {place: dims[axis.name] for place, axis in stage.open_axes.get(name, {}).items()}
        for name in stage.inputs
    )


def _check_example(axis: OpenAxis, size: int) -> None:
    """What has one part in an example stays constant."""
    low, high = max(axis.low, 2 * axis.multiple), axis.high
    if not low <= size <= high:
        raise ConfigError(f"{axis.name} is open, and its example is {size}, not in {low} .. {high}")


def _dim(axis: OpenAxis) -> Any:
    low, high = axis.low // axis.multiple, axis.high // axis.multiple
    if axis.multiple == 1:
        return torch.export.Dim(axis.name, min=low, max=high)
    return axis.multiple * torch.export.Dim(_parts(axis), min=low, max=high)


def _parts(axis: OpenAxis) -> str:
    return f"{axis.name}_parts"


def _is_large(module: nn.Module) -> bool:
    weights = chain(module.parameters(), module.buffers())
    return sum(tensor.nbytes for tensor in weights) > EXTERNAL


def _strip(proto: Any) -> None:
    """Take out the stack traces that torch leaves on every node.

    They name files of the machine, and without them the same network gives the same bytes, which
    a cache of compiled engines can be keyed by.
    """
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for initializer in graph.initializer:
        initializer.ClearField("metadata_props")


def _name_axes(proto: Any, stage: Stage) -> None:
    """Name open axes as the stage does, also where torch knows them as a product."""
    names = {
        f"{axis.multiple}*{_parts(axis)}": axis.name
        for axes in stage.open_axes.values()
        for axis in axes.values()
    }
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _specs(values: Any) -> dict[str, TensorSpec]:
    specs = {}
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
        specs[value.name] = TensorSpec(shape, _torch_name(kind.elem_type))
    return specs


def _torch_name(element_type: int) -> str:
    """The name that torch has for a type of ONNX."""
    onnx = _require("onnx")
    name = onnx.TensorProto.DataType.Name(element_type).lower()
    return {"float": "float32", "float8e4m3fn": "float8_e4m3fn"}.get(name, name)


@contextmanager
def writing(path: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A file of the same name in a temporary folder beside it, renamed to `path` at the end, with
    weights that lie beside it; removed on any failure."""
    file = AtomicFile(os.fspath(path), overwrite)
    try:
        prefix = f".{file.target.stem}."
        with TemporaryDirectory(dir=file.target.parent, prefix=prefix) as folder:
            partial = Path(folder) / file.target.name
            yield partial
            os.replace(partial, file.path)
            if data_file(partial).exists():
                os.replace(data_file(partial), data_file(file.target))
    except BaseException:
        file.abort()
        raise
    file.commit()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself (absent torchvision, its deprecations) back."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name")  # several inputs share one
            yield
    finally:
        logger.setLevel(level)


def _require(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise EngineError(
            f"{package} is needed for ONNX files: pip install 'dtg-restore[onnx]'"
        ) from error
