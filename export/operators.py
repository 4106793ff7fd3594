"""The ONNX operators that TensorRT's parser takes, and with which types.

From docs/operators.md of onnx-tensorrt, as of TensorRT 10.15 (opset 9 to 24).  DOUBLE is left out,
although the parser reads it: it makes FLOAT of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})
NUMBERS = FLOATS | {"INT32", "INT64"}
VALUES = NUMBERS | {"BOOL"}
QUANTISED = frozenset({"INT8", "FLOAT8E4M3FN", "FLOAT4E2M1", "INT4"})

# Every type that a tensor of a graph may have.
TYPES = VALUES | QUANTISED | {"UINT8"}

_BY_TYPES: dict[frozenset[str], str] = {
    FLOATS: """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv
        ConvTranspose Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool
        GlobalLpPool GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax
        InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax
        LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu QuantizeLinear RNN
        RMSNormalization RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal
        Resize RotaryEmbedding Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan
        Tanh ThresholdedRelu Upsample""",
    FLOATS - {"BFLOAT16"}: """
        BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero
        RoiAlign""",
    NUMBERS: """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual
        Max Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements
        ScatterND Shrink Sign SpaceToDepth Sub Sum TopK""",
    VALUES: """
        Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape
        ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where""",
    VALUES | {"UINT8"}: "Cast CastLike",
    VALUES | QUANTISED - {"INT8"}: "Constant ConstantOfShape",
    NUMBERS | {"INT8"}: "Gelu",
    NUMBERS | {"FLOAT8E4M3FN"}: "Mean",
    FLOATS | {"INT8", "FLOAT8E4M3FN"}: "Attention",
    FLOATS | {"INT32"}: "TensorScatter",
    QUANTISED: "DequantizeLinear",
    frozenset({"BOOL"}): "And Not Or Xor",
    frozenset({"FLOAT"}): "STFT",
}
OPERATORS = {name: types for types, names in _BY_TYPES.items() for name in names.split()}

# Inputs that have to be stored in the graph, by their place.
STORED = {"CumSum": 1} | {name: 1 for name in OPERATORS if name.startswith("Reduce")}
# The place of the input that the types are those of, where it is not the first one.
TYPED = {"Where": 1}


def unsupported(proto: Any) -> list[str]:
    """Why TensorRT's parser would refuse a ModelProto, one reason for each kind; empty if it takes
    it.

    Types are those that the graph states for its values; weights may lie beside it.
    """
    onnx = import_module("onnx")
    types = {
        name: onnx.TensorProto.DataType.Name(kind) for name, kind in _element_types(proto.graph)
    }
    stored = {initializer.name for initializer in proto.graph.initializer}
    reasons = [f"tensors of {kind}" for kind in types.values() if kind not in TYPES]
    for node in proto.graph.node:
        reasons += _node_reasons(node, types, stored)
        if node.op_type == "Constant":
            stored |= set(node.output)
    return sorted(set(reasons))


def _node_reasons(node: Any, types: dict[str, str], stored: set[str]) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"{node.domain}.{node.op_type} is of another domain"
        return
    if node.op_type not in OPERATORS:
        yield f"{node.op_type} is not supported"
        return
    place = TYPED.get(node.op_type, 0)
    name = node.input[place] if node.input else node.output[0]
    if node.op_type == "ConstantOfShape":
        name = node.output[0]
    if name in types and types[name] not in OPERATORS[node.op_type]:
        yield f"{node.op_type} of {types[name]} is not supported"
    place = STORED.get(node.op_type, len(node.input))
    if place < len(node.input) and node.input[place] and node.input[place] not in stored:
        yield f"{node.op_type} has a computed {node.input[place]!r}"


def _element_types(graph: Any) -> Iterator[tuple[str, int]]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type
    for initializer in graph.initializer:
        yield initializer.name, initializer.data_type
