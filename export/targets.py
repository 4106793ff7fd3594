"""What compiles a stage into files, by the name of the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .aot import to_aot
from .onnx import to_onnx
from .ort import to_ort
from .recipe import Recipe
from .stage import Artefact, Stage

Compile = Callable[[Recipe, Stage, Path], Artefact]


def compile_stage(recipe: Recipe, stage: Stage, folder: Path) -> Artefact:
    """The files of a stage in `folder`; errors as those of the target."""
    return TARGETS[recipe.request.to](recipe, stage, folder)


def _onnx(recipe: Recipe, stage: Stage, folder: Path) -> Artefact:
    return to_onnx(stage, folder, recipe.opset)


def _ort(recipe: Recipe, stage: Stage, folder: Path) -> Artefact:
    return to_ort(_onnx(recipe, stage, folder), folder, recipe.device)


def _aot(recipe: Recipe, stage: Stage, folder: Path) -> Artefact:
    return to_aot(stage, folder, recipe.device)


TARGETS: dict[str, Compile] = {"onnx": _onnx, "ort": _ort, "aot": _aot}
