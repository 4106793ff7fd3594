"""Weights of graphs in files that components of a bundle share.

A file holds the bytes of one tensor and is named after them, so that what is computed for another
batch, another tile or the next slice of a clip takes no room for its weights again.
"""

from __future__ import annotations

import hashlib
import mmap
from importlib import import_module
from pathlib import Path
from typing import Any

from .graph import data_file, read_graph
from .stage import Artefact

FOLDER = "weights"
# Bytes from which on a tensor has a file: matrices, not biases and norms, which are most tensors
# of a network and hardly any of its bytes.
LEAST = 2**16


def share_weights(artefact: Artefact, folder: Path) -> Artefact:
    """Move the weights of the graph that `artefact` opens to `<folder>/weights`.

    A tensor that another graph has brought there already is stored once.  The graph is replaced,
    and what lay beside it alone is removed; the files of the result are the graph and its weights.
    """
    path = folder / artefact.files[0]
    beside = data_file(path)
    proto = read_graph(path)
    found = set()
    for tensor in proto.graph.initializer:
        data = _bytes(tensor, folder)
        if len(data) >= LEAST:
            found.add(_refer(tensor, data, folder))
        else:
            _embed(tensor, data)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    beside.unlink(missing_ok=True)
    return artefact._replace(files=(path.name, *sorted(found)))


def _bytes(tensor: Any, folder: Path) -> bytes:
    """The values, in the order of their axes."""
    onnx = import_module("onnx")
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        data: bytes = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
        return data
    place = {entry.key: entry.value for entry in tensor.external_data}
    start, length = int(place.get("offset", 0)), int(place["length"])
    with (
        (folder / place["location"]).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored,
    ):
        return stored[start : start + length]


def _refer(tensor: Any, data: bytes, folder: Path) -> str:
    """Store the values where they are not yet, and return the name of the file."""
    onnx = import_module("onnx")
    name = f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:32]}.bin"
    file = folder / name
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    _clear(tensor)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    return name


def _embed(tensor: Any, data: bytes) -> None:
    _clear(tensor)
    tensor.raw_data = data


def _clear(tensor: Any) -> None:
    """Take out the values, in whichever field they are."""
    onnx = import_module("onnx")
    for field in onnx.TensorProto.DESCRIPTOR.fields_by_name:
        if field.endswith("_data") or field == "data_location":
            tensor.ClearField(field)
