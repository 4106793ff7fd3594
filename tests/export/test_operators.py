"""What TensorRT's parser is said to refuse."""

from __future__ import annotations

from typing import Any

import pytest

from dtg_restore.export.operators import OPERATORS, unsupported


@pytest.fixture
def graph(onnx: Any) -> Any:
    """Makes a graph of nodes (type, inputs, outputs) and values (name, type)."""
    helper, types = onnx.helper, onnx.TensorProto

    def make(nodes: Any, values: Any, stored: Any = (), domain: str = "") -> Any:
        infos = [helper.make_tensor_value_info(n, getattr(types, t), [2]) for n, t in values]
        made = [helper.make_node(*node, domain=domain) for node in nodes]
        tensors = [helper.make_tensor(name, types.INT64, [1], [0]) for name in stored]
        return helper.make_model(helper.make_graph(made, "g", infos[:1], infos[1:], tensors))

    return make


def test_what_it_takes(graph: Any) -> None:
    nodes = [("Add", ["x", "x"], ["y"]), ("ReduceMean", ["y", "axes"], ["z"])]
    assert unsupported(graph(nodes, [("x", "BFLOAT16"), ("z", "BFLOAT16")], ["axes"])) == []


def test_unknown_operator(graph: Any) -> None:
    proto = graph([("Det", ["x"], ["y"]), ("Det", ["y"], ["z"])], [("x", "FLOAT"), ("z", "FLOAT")])
    assert unsupported(proto) == ["Det is not supported"]


def test_other_domain(graph: Any) -> None:
    proto = graph([("Add", ["x", "x"], ["y"])], [("x", "FLOAT"), ("y", "FLOAT")], domain="mine")
    assert unsupported(proto) == ["mine.Add is of another domain"]


def test_types(graph: Any) -> None:
    wide = graph([("Add", ["x", "x"], ["y"])], [("x", "DOUBLE"), ("y", "DOUBLE")])
    assert unsupported(wide) == ["Add of DOUBLE is not supported", "tensors of DOUBLE"]
    whole = graph([("Sin", ["x"], ["y"])], [("x", "INT64"), ("y", "INT64")])
    assert unsupported(whole) == ["Sin of INT64 is not supported"]
    chosen = graph([("Where", ["x", "a", "b"], ["y"])], [("x", "BOOL"), ("y", "FLOAT")])
    assert unsupported(chosen) == []
    filled = graph([("ConstantOfShape", ["x"], ["y"])], [("x", "INT64"), ("y", "UINT8")])
    assert unsupported(filled) == ["ConstantOfShape of UINT8 is not supported"]


def test_axes_are_stored(graph: Any) -> None:
    values = [("x", "FLOAT"), ("z", "FLOAT")]
    proto = graph([("ReduceSum", ["x", "axes"], ["z"])], values)
    assert unsupported(proto) == ["ReduceSum has a computed 'axes'"]
    constant = ("Constant", [], ["axes"])
    assert unsupported(graph([constant, ("ReduceSum", ["x", "axes"], ["z"])], values)) == []


def test_table_names_operators_of_onnx(onnx: Any) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert set(OPERATORS) <= known
