"""What compiles a stage into files, by the name of the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .aot import to_aot
from .calibrate import Calibration
from .fp8 import fp8_artefact
from .onnx import to_onnx
from .ort import to_ort
from .recipe import Recipe
from .shared import share_weights
from .stage import Artefact, Stage
from .tensorrt import to_tensorrt


class Job(NamedTuple):
    """Parameters
    ----------
    folder : of the bundle.
    calibration : of the backbone, for fp8.
    on_part : told the name of the stage and the share of it that is done, by targets that know.
    """

    recipe: Recipe
    stage: Stage
    folder: Path
    calibration: Calibration | None
    on_part: Callable[[str, float], None]


def compile_stage(job: Job) -> Artefact:
    """The files of a stage; errors as those of the target."""
    return TARGETS[job.recipe.request.to](job)


def _onnx(job: Job) -> Artefact:
    return share_weights(_graph(job, job.folder), job.folder)


def _ort(job: Job) -> Artefact:
    # After its passes over the graph, which store weights in another order of their axes.
    optimised = to_ort(_graph(job, job.folder), job.folder, job.recipe.device)
    return share_weights(optimised, job.folder)


def _aot(job: Job) -> Artefact:
    return to_aot(job.stage, job.folder, job.recipe.device)


def _tensorrt(job: Job) -> Artefact:
    options = job.recipe.tensorrt
    assert options is not None
    return to_tensorrt(
        job.stage,
        job.folder,
        options,
        job.on_part,
        write=lambda stage, folder: _graph(job, folder),
    )


def _graph(job: Job, folder: Path) -> Artefact:
    """As ONNX in `folder`, quantised where the bundle is."""
    artefact = to_onnx(job.stage, folder, job.recipe.opset)
    if job.calibration is None:
        return artefact
    return fp8_artefact(job.stage, artefact, folder, job.calibration)


TARGETS: dict[str, Callable[[Job], Artefact]] = {
    "onnx": _onnx,
    "ort": _ort,
    "aot": _aot,
    "tensorrt": _tensorrt,
}
