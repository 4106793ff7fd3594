"""What an engine takes, and the memory it makes."""

from __future__ import annotations

import pytest
import torch

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.runtimes.base import TensorSpec
from dtg_restore.engine.runtimes.tensors import checked, new_outputs, shape_of

CPU = torch.device("cpu")
SPECS = {
    "frames": TensorSpec((1, 3, "height", "width"), "float32"),
    "mask": TensorSpec(("height", "width"), "bool"),
}


def call(height: int = 4, width: int = 6) -> dict[str, torch.Tensor]:
    mask = torch.ones(height, width, dtype=torch.bool)
    return {"mask": mask, "frames": torch.rand(1, 3, height, width)}


def test_order_is_that_of_the_component() -> None:
    inputs = call()
    given, sizes = checked(inputs, SPECS, CPU)
    assert list(given) == ["frames", "mask"] and sizes == {"height": 4, "width": 6}
    assert all(given[name] is inputs[name] for name in given)  # nothing is copied


def test_rows_follow_each_other() -> None:
    inputs = call() | {"frames": torch.rand(1, 6, 4, 3).permute(0, 3, 2, 1)}
    given, _ = checked(inputs, SPECS, CPU)
    assert given["frames"].is_contiguous() and torch.equal(given["frames"], inputs["frames"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": torch.rand(1, 3, 5, 6)}, r"input mask is \(4, 6\), not \(height, width\)"),
        ({"frames": torch.rand(2, 3, 4, 6)}, r"frames is \(2, 3, 4, 6\), not \(1, 3, height, wid"),
        ({"frames": torch.rand(3, 4, 6)}, r"frames is \(3, 4, 6\), not"),
        ({"mask": torch.ones(4, 6)}, "input mask is of torch.float32, and must be of bool"),
        ({"other": torch.ones(4, 6)}, "the inputs are frames, mask, not mask, frames, other"),
        ({"mask": torch.ones(4, 6, device="meta")}, "mask lies on meta, and the engine on cpu"),
    ],
)
def test_what_does_not_fit(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(call() | change, SPECS, CPU)


def test_nothing_given() -> None:
    with pytest.raises(ConfigError, match="the inputs are frames, mask, not none at all"):
        checked({}, SPECS, CPU)


def test_memory_of_results() -> None:
    specs = {"upscaled": TensorSpec((1, "2*height", "width"), "bfloat16")}
    result = new_outputs(specs, {"height": 4, "width": 6}, CPU)["upscaled"]
    assert (result.shape, result.dtype) == ((1, 8, 6), torch.bfloat16)
    assert shape_of(specs["upscaled"], {"height": 1, "width": 1}) == (1, 2, 1)
