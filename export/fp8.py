"""Products in fp8: a graph of a pass, with its linear layers quantised explicitly.

    y = DQ(Q(x)) DQ(W_q) + b        Q(x) = e4m3(x / s), clipped to +-448        DQ(q) = s q

One scale s for a tensor, of inputs from a calibration and of weights from their largest magnitude:
that is the form that TensorRT's documents give for fp8, and on `mini` a scale for every output
channel was no more accurate.  Weights are stored in fp8.  Layers of one input, such as queries,
keys and values of a block, share its quantisation.  Inside the blocks every linear layer of the
pass is quantised; patch embedding, output projection, modulation and the products of attention are
not.

The exporter of torch folds weights into constants under names of its own, so that a layer is found
by its values.  A layer that is not found is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engine.backbones.dit import DiT
from ..engine.errors import EngineError
from .calibrate import Calibration, linear_layers
from .graph import checked, data_file
from .stage import Artefact, Stage

LARGEST = 448.0  # of e4m3
ZERO = "fp8.zero"  # its type is what an input is quantised to
TYPES = {
    "FLOAT": torch.float32,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "FLOAT8E4M3FN": torch.float8_e4m3fn,
}


class Quantised(NamedTuple):
    """A linear layer: its weight (O, I) as the graph has it, the largest magnitude of its input."""

    weight: Tensor
    amax: float


def fp8_artefact(
    stage: Stage, artefact: Artefact, folder: Path, calibration: Calibration
) -> Artefact:
    """Quantise the ONNX file of a pass in its place; that of another stage stays as it is.

    Parameters
    ----------
    stage, artefact : a stage, and what `to_onnx` made of it in `folder`.
    calibration : of the network whose pass it is.

    Raises
    ------
    EngineError : the calibration is of another network, or one of its layers is not in the graph.
    """
    if not stage.name.startswith("velocity."):
        return artefact
    onnx = import_module("onnx")
    (network,) = (part for part in stage.module.modules() if isinstance(part, DiT))
    layers, amax = linear_layers(network), calibration.of(network)
    path = folder / artefact.files[0]
    proto = onnx.load(path)  # with weights that lie beside it
    insert_qdq(proto, {name: Quantised(layers[name].weight, amax[name]) for name in amax})
    return _replace(proto, path, len(artefact.files) > 1)


def insert_qdq(proto: Any, layers: Mapping[str, Quantised]) -> None:
    """Quantise `layers`, by name, wherever a ModelProto multiplies by their weights.

    EngineError where one of them is not found, or two have equal weights.
    """
    graph = proto.graph
    weights, rewritten = _Weights(graph, layers), _Rewritten(graph)
    for node in graph.node:
        name = weights.layer_of(node)
        if name is not None:
            rewritten.quantise(node, name, layers[name])
        rewritten.nodes.append(node)
    if absent := sorted(layers.keys() - rewritten.weights):
        raise EngineError(f"the graph multiplies by no weights of {', '.join(absent)}")
    rewritten.finish()


class _Weights:
    """Tells which layer a node of a graph multiplies by, from the values of the matrix."""

    def __init__(self, graph: Any, layers: Mapping[str, Quantised]):
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._transposes = {
            node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"
        }
        self._shapes = {tuple(layer.weight.shape) for layer in layers.values()}
        self._layers: dict[str, str] = {}
        for name, layer in layers.items():
            other = self._layers.setdefault(_digest(layer.weight), name)
            if other != name:
                raise EngineError(f"{other} and {name} have equal weights: one cannot be told")

    def layer_of(self, node: Any) -> str | None:
        if node.op_type not in ("MatMul", "Gemm"):
            return None
        name, is_transposed = node.input[1], any(a.name == "transB" and a.i for a in node.attribute)
        if name in self._transposes:  # a matrix so large that torch does not fold it
            name, is_transposed = self._transposes[name], not is_transposed
        tensor = self._stored.get(name)
        if tensor is None or not self._shapes & {tuple(tensor.dims), tuple(tensor.dims)[::-1]}:
            return None
        matrix = _tensor(tensor)
        return self._layers.get(_digest(matrix if is_transposed else matrix.T))


class _Rewritten:
    """The nodes of a graph as they become, in order; what is stored is added to the graph."""

    def __init__(self, graph: Any):
        self._graph, self._onnx = graph, import_module("onnx")
        self.nodes: list[Any] = []
        self.weights: set[str] = set()  # layers whose weight is there
        self._inputs: dict[tuple[str, float], str] = {}
        self._store(ZERO, torch.zeros((), dtype=torch.float8_e4m3fn))

    def quantise(self, node: Any, name: str, layer: Quantised) -> None:
        """Make both factors of `node` what their fp8 values stand for."""
        key = (node.input[0], layer.amax)
        if key not in self._inputs:
            self._inputs[key] = self._input(f"{name}.input", node.input[0], layer)
        if name not in self.weights:
            self._weight(f"{name}.weight", layer.weight)
            self.weights.add(name)
        node.input[0], node.input[1] = self._inputs[key], f"{name}.weight.dequantized"
        for attribute in node.attribute:  # the weight is stored as (I, O)
            if attribute.name == "transB":
                attribute.i = 0

    def finish(self) -> None:
        """Put the nodes into the graph, and take out what none of them uses any more."""
        graph = self._graph
        used = {name for node in self.nodes for name in node.input}
        used |= {output.name for output in graph.output}
        nodes = [node for node in self.nodes if used & set(node.output)]
        used = {name for node in nodes for name in node.input}
        made = {name for node in nodes for name in node.output}
        _keep(graph.node, nodes)
        _keep(graph.initializer, [t for t in graph.initializer if t.name in used])
        _keep(graph.value_info, [v for v in graph.value_info if v.name in made])

    def _input(self, name: str, source: str, layer: Quantised) -> str:
        self._store(f"{name}.scale", _scale(layer.amax, layer.weight.dtype))
        quantised, made = f"{name}.quantized", f"{name}.dequantized"
        self._node("QuantizeLinear", source, f"{name}.scale", quantised)
        self._node("DequantizeLinear", quantised, f"{name}.scale", made)
        return made

    def _weight(self, name: str, weight: Tensor) -> None:
        scale = _scale(weight.abs().amax().item(), weight.dtype)
        q = (weight.detach().cpu().T.float() / scale.float()).clamp(-LARGEST, LARGEST)
        self._store(f"{name}.scale", scale)
        self._store(f"{name}.quantized", q.to(torch.float8_e4m3fn))
        self._node("DequantizeLinear", f"{name}.quantized", f"{name}.scale", f"{name}.dequantized")

    def _node(self, kind: str, source: str, scale: str, output: str) -> None:
        inputs = [source, scale, ZERO]
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name=output))

    def _store(self, name: str, value: Tensor) -> None:
        kinds = self._onnx.TensorProto
        data_type = {dtype: getattr(kinds, kind) for kind, dtype in TYPES.items()}[value.dtype]
        tensor = kinds(name=name, dims=value.shape, data_type=data_type, raw_data=_bytes(value))
        self._graph.initializer.append(tensor)


def _scale(amax: float, dtype: torch.dtype) -> Tensor:
    """What 1 in fp8 stands for, as the scalar that the graph has."""
    scale = torch.tensor(amax / LARGEST).to(dtype)
    return scale if scale > 0 else torch.ones((), dtype=dtype)


def _tensor(stored: Any) -> Tensor:
    onnx = import_module("onnx")
    data = stored.raw_data or onnx.numpy_helper.to_array(stored).tobytes()
    dtype = TYPES[onnx.TensorProto.DataType.Name(stored.data_type)]
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(tuple(stored.dims))


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(matrix: Tensor) -> str:
    return hashlib.sha256(_bytes(matrix)).hexdigest()


def _keep(field: Any, kept: list[Any]) -> None:
    del field[:]
    field.extend(kept)


def _replace(proto: Any, path: Path, is_external: bool) -> Artefact:
    """Write the graph in the place of the file that it was read from."""
    onnx = import_module("onnx")
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        made = Path(folder) / path.name
        location = data_file(path).name
        onnx.save(proto, made, save_as_external_data=is_external, location=location)
        artefact = checked(made)
        for name in artefact.files:
            (made.parent / name).replace(path.parent / name)
    return artefact
