"""Stages as packages of AOTInductor: compiled by torch, opened from Python or C++ without it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.errors import EngineError
from ..engine.runtimes.base import TensorSpec
from .graph import dynamic_shapes
from .stage import Artefact, Stage

# Weights are packed for oneDNN and constants computed when it is compiled.  The number of threads
# is that of the process that runs it, on machines of any number of cores.
OPTIONS: dict[str, Any] = {
    "freezing": True,
    "cpp.dynamic_threads": True,
    "cpp.threads": 64,
}


def to_aot(stage: Stage, folder: Path, device: torch.device) -> Artefact:
    """Compile into `<stage.name>.pt2`, for `device` and, of a CPU, its instruction set.

    Parameters
    ----------
    stage : its module and examples on `device`.
    folder : exists; nothing else is written but what torch keeps in its cache of compiled code.

    Raises
    ------
    EngineError : the stage cannot be traced, or there is no compiler for it.
    """
    examples = {name: tensor.contiguous() for name, tensor in stage.inputs.items()}
    path = folder / f"{stage.name}.pt2"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about torch
        try:
            program = torch.export.export(
                stage.module, tuple(examples.values()), dynamic_shapes=dynamic_shapes(stage)
            )
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=OPTIONS
            )
        except Exception as error:  # of every part of the compiler
            first = str(error).strip().partition("\n")[0]
            raise EngineError(f"torch cannot compile {stage.name}: {first}") from error
    return Artefact((path.name,), _inputs(stage), _outputs(stage, program), None)


def _inputs(stage: Stage) -> dict[str, TensorSpec]:
    specs = {}
    for name, tensor in stage.inputs.items():
        shape: list[int | str] = list(tensor.shape)
        for place, axis in stage.open_axes.get(name, {}).items():
            shape[place] = axis.name
        specs[name] = TensorSpec(tuple(shape), _name_of(tensor))
    return specs


def _outputs(stage: Stage, program: Any) -> dict[str, TensorSpec]:
    """Open axes of the results are multiples of those of the inputs, as "2*height"."""
    values = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]
    given = dict(
        zip(program.graph_signature.user_inputs, values[-len(stage.inputs) :], strict=True)
    )
    open_sizes = {
        axis.name: value.shape[place]
        for name, value in zip(stage.inputs, given.values(), strict=True)
        for place, axis in stage.open_axes.get(name, {}).items()
    }
    (output,) = program.graph.find_nodes(op="output")
    results = [node.meta["val"] for node in output.args[0]]
    return {
        name: TensorSpec(tuple(_axis(size, open_sizes) for size in value.shape), _name_of(value))
        for name, value in zip(stage.outputs, results, strict=True)
    }


def _axis(size: Any, open_sizes: dict[str, Any]) -> int | str:
    if isinstance(size, int):
        return size
    for name, other in open_sizes.items():
        factor = size.node.expr / other.node.expr
        if factor.is_Integer:
            return name if factor == 1 else f"{factor}*{name}"
    raise EngineError(f"the size {size} of a result is no multiple of one of an input")


def _name_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
