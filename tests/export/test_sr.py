"""The stage of a super-resolution network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.sr import load_sr
from dtg_restore.engine.sr.frames import TILE
from dtg_restore.export import to_onnx
from dtg_restore.export.sr import sr_stage


def test_embedded_model_of_any_size(
    run: Callable[..., list[Tensor]], close: Callable[..., None], tmp_path: Path
) -> None:
    model = load_sr("mini-x2")
    made = to_onnx(sr_stage(model), tmp_path)
    assert made.files == ("upscale.onnx",)
    assert made.inputs == {"frames": ((1, 3, "height", "width"), "float32")}
    assert made.outputs == {"upscaled": ((1, 3, "2*height", "2*width"), "float32")}
    for size in ((1, 5), (21, 12)):
        frames = torch.rand(1, 3, *size)
        close(run(tmp_path / made.files[0], {"frames": frames}), model.upscale(frames))


def test_range_of_sizes() -> None:
    """A tile with its surroundings is what a compiler optimises for, and none is larger."""
    model = load_sr("mini-x4")
    for axis in sr_stage(model).open_axes["frames"].values():
        halo = 2 * model.facts.halo
        assert axis.typical == TILE["cpu"] + halo
        assert (axis.low, axis.high) == (1, TILE["cuda"] + halo)


def test_other_models_are_refused() -> None:
    class Other:
        facts = load_sr("mini-x2").facts

    with pytest.raises(EngineError, match="mini-x2 is no network that sees single frames"):
        sr_stage(Other())  # type: ignore[arg-type]
