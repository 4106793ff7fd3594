"""From a module to a checked ONNX file, and what is written beside the graph."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..engine.errors import ConfigError, EngineError
from ..engine.media.atomic import AtomicFile

# The lowest opset in which GELU is one op, hence the one that most versions of a runtime read:
# TensorRT documents 9 to 24 for 10.15 and 9 to 25 for 11.  From 23 on attention and RMSNorm are
# single ops, too.
OPSET, NEWEST_OPSET = 20, 23
LARGEST = 2**31 - 2**24  # bytes of weights in one file; protobuf ends at 2 GiB


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """What `export_sr` and `export_backbone` wrote beside the graph.

    `kind`, `name`, `facts` and `shape` (JSON), `precision`, `weights_sha256`; `scale` for SR,
    `config` (JSON) for a backbone.  EngineError where the file is no ONNX file.
    """
    onnx = _require("onnx")
    try:
        proto = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's own classes differ between its implementations
        raise EngineError(f"{os.fspath(path)} is no ONNX file: {error}") from error
    return {entry.key: entry.value for entry in proto.metadata_props}


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


def trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    output: str,
    opset: int,
    free: tuple[dict[int, Any], ...] | None = None,
) -> Any:
    """The module as a ModelProto; `free` names the open axes of each input, where there are any."""
    if not OPSET <= opset <= NEWEST_OPSET:
        raise ConfigError(f"opset must be in {OPSET} .. {NEWEST_OPSET}, not {opset}")
    if sum(t.numel() * t.element_size() for t in module.state_dict().values()) > LARGEST:
        raise EngineError("the weights exceed the 2 GiB that one ONNX file can hold")
    for package in ("onnx", "onnxscript"):  # the exporter of torch is built on the second
        _require(package)
    with torch.no_grad(), _quiet():
        # Fills the caches of constant tables, so that the trace finds constants.  Filled by the
        # trace, they would keep its tensors without values, and eager calls would break.
        module(*inputs)
        try:
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=list(names),
                output_names=[output],
                dynamic_shapes=free,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise EngineError(f"torch cannot export this network to ONNX: {error}") from error
    assert program is not None  # None is the answer of the old exporter
    return program.model_proto


def save(proto: Any, path: Path, metadata: dict[str, str]) -> None:
    """Check the graph and write it with its metadata."""
    onnx = _require("onnx")
    _strip(proto)
    proto.producer_name, proto.producer_version = "dtg-restore", __version__
    onnx.helper.set_model_props(proto, metadata)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"the exported graph is not valid ONNX: {error}") from error
    path.write_bytes(proto.SerializeToString(deterministic=True))


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


@contextmanager
def writing(path: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end, removed on any failure."""
    file = AtomicFile(os.fspath(path), overwrite)
    try:
        yield file.path
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
