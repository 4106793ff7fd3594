"""Packages of AOTInductor, as files; `tests/engine/runtimes/test_engines.py` runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.runtimes.base import TensorSpec
from dtg_restore.export.aot import OPTIONS, to_aot
from dtg_restore.export.stage import OpenAxis, Stage

CPU = torch.device("cpu")

OPEN = """
import sys, torch
from pathlib import Path
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.runtimes.base import TensorSpec
from dtg_restore.engine.runtimes.engines import open_engine
torch.set_num_threads(2)
shape = (1, 3, "height", "width")
component = Component(("upscale.pt2",), {"frames": TensorSpec(shape, "float32")}, {"y": None})
engine = open_engine("aot", Path(sys.argv[1]), component, torch.device("cpu"))
(result,) = engine({"frames": torch.ones(1, 3, 5, 8)}).values()
print(tuple(result.shape), "torch._inductor" in sys.modules, "torch._dynamo" in sys.modules)
"""


class Enlarge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.layer(frames), 2)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1


def test_a_package_opens_without_the_compiler(tmp_path: Path) -> None:
    """In another process, with other sizes and another number of threads."""
    axes = {2: OpenAxis("height", 2, 6, 64), 3: OpenAxis("width", 2, 8, 64, multiple=2)}
    stage = Stage(
        *("upscale", Enlarge().eval(), {"frames": torch.rand(1, 3, 6, 8)}, ("y",)),
        {"frames": axes},
    )
    artefact = to_aot(stage, tmp_path, CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["upscale.pt2"] == list(artefact.files)
    assert artefact.inputs == {"frames": TensorSpec((1, 3, "height", "width"), "float32")}
    assert artefact.outputs == {"y": TensorSpec((1, 3, "2*height", "2*width"), "float32")}
    assert artefact.onnx_sha256 is None
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "(1, 3, 10, 16) False False"


def test_what_cannot_be_traced(tmp_path: Path) -> None:
    stage = Stage("velocity.0", Undecided(), {"x": torch.ones(2)}, ("v",))
    with pytest.raises(EngineError, match=r"torch cannot compile velocity\.0: .+"):
        to_aot(stage, tmp_path, CPU)
    assert not list(tmp_path.iterdir())


def test_threads_are_those_of_the_process_that_runs_it() -> None:
    """Else their number would be written into the code, and be one where one thread exports."""
    assert OPTIONS["cpp.dynamic_threads"] and OPTIONS["cpp.threads"] > 1
