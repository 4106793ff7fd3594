"""The stages of `mini`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.mini import PHASES, TAGS, MiniBackbone
from dtg_restore.engine.bundle.facts import backbone_facts
from dtg_restore.engine.errors import ConfigError
from dtg_restore.export import to_onnx
from dtg_restore.export.mini import condition_stage, model, stages


def test_conditioning_of_any_number_of_times(
    make_mini: Callable[..., MiniBackbone],
    run: Callable[..., list[Tensor]],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    backbone = make_mini(depth=2)
    stage = condition_stage(backbone)
    made = to_onnx(stage, tmp_path)
    assert made.inputs["times"] == (("n",), "float32") and made.inputs["tags"] == ((2,), "int64")
    assert made.outputs["modulation"] == ((2, "n", 6, 48), "float32")
    assert made.outputs["keys"] == made.outputs["values"] == ((2, 2, 2, 4, 24), "float32")
    for times, tags in (([0.6, 0.4, 0.1], [0, 2]), ([0.5], [1, 1])):
        inputs = {"times": torch.tensor(times), "tags": torch.tensor(tags)}
        expected = backbone.network.condition(*inputs.values())
        keys, values = (torch.stack(part) for part in zip(*expected.keys_values, strict=True))
        results = run(tmp_path / made.files[0], inputs)
        close(results, (expected.modulation, expected.final, keys, values))


def test_names_are_those_of_a_bundle(make_mini: Callable[..., MiniBackbone]) -> None:
    made = list(stages(make_mini(), [Bucket(4, 16, 24, (1, 2)), Bucket(2, 8, 8, (3,))]))
    names = ["condition.0", "velocity.0.1x4x16x24", "velocity.0.2x4x16x24", "velocity.0.3x2x8x8"]
    assert [stage.name for stage in made] == names
    assert made[2].inputs["x"].shape == (2, 3, 4, 16, 24)
    assert list(made[2].inputs) == ["x", "t", "modulation", "final", "keys", "values"]


def test_keys_have_the_type_of_the_network(make_mini: Callable[..., MiniBackbone]) -> None:
    made = list(stages(make_mini(dtype=torch.bfloat16), [Bucket(2, 8, 8, (1,))]))
    types = {name: tensor.dtype for name, tensor in made[1].inputs.items()}
    assert types["keys"] == types["values"] == torch.bfloat16
    assert {types[name] for name in ("x", "t", "modulation", "final")} == {torch.float32}
    assert made[1].module(*made[1].inputs.values()).dtype == torch.float32


def test_buckets_that_do_not_fit(make_mini: Callable[..., MiniBackbone]) -> None:
    for bucket in (Bucket(3, 8, 8, (1,)), Bucket(2, 12, 8, (1,)), Bucket(2, 8, 8, (0,))):
        with pytest.raises(ConfigError, match="mini takes 2 k"):
            next(stages(make_mini(), [bucket]))


def test_what_a_manifest_says(make_mini: Callable[..., MiniBackbone]) -> None:
    backbone = make_mini()
    data: dict[str, Any] = json.loads(json.dumps(model(backbone)))
    assert data["family"] == "mini" and data["text_tokens"] is None
    assert [tuple(phase) for phase in data["phases"]] == list(PHASES)
    assert tuple(data["tags"]) == TAGS
    assert backbone_facts(data["facts"]) == backbone.facts
