"""The key: the same for the same bundle, another one for anything that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.engine import checkpoint
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.export import key as key_module
from dtg_restore.export.key import key_of
from dtg_restore.export.recipe import make_recipe
from dtg_restore.export.request import ExportRequest

pytestmark = pytest.mark.usefixtures("cache")


def key(small: dict[str, str], **settings: Any) -> str:
    given = {"backbone": small["backbone"], "sr": small["sr"], "device": "cpu", "to": "onnx"}
    return key_of(make_recipe(ExportRequest(**given | settings)))


def test_whatever_changes_a_bundle_changes_its_key(small: dict[str, str]) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"backbone": small["other backbone"]},
        {"sr": small["other sr"]},
        {"sr": "none"},
        {"backbone": "none"},
        {"to": "ort"},
        {"dtype": "bf16"},
        {"opset": 21},
        {"tile": ((32, 32),)},
        {"tile": ((64, 64), (32, 32))},
        {"tile": ((32, 32), (64, 64))},  # another one is preferred
        {"chunk": 4},
        {"batch": (1,)},
        {"batch": (1, 2)},
        {"prompt": "degraded"},
        {"negative_prompt": "clean"},
    ]
    keys = [key(small, **change) for change in changes]
    assert len(set(keys)) == len(keys)


def test_the_same_bundle_has_the_same_key(small: dict[str, str], tmp_path: Path) -> None:
    moved = shutil.copy(small["backbone"], tmp_path / "moved.safetensors")
    plain = key(small)
    assert key(small, backbone=str(moved)) == plain
    assert key(small, dtype="fp32", opset=20, chunk=16, batch=(8, 4, 4)) == plain
    assert key(small, prompt="clean", tile=((57, 64), (64, 64))) == plain  # rounded up


def test_libraries_and_sources_are_part_of_it(
    small: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = key(small)
    with monkeypatch.context() as patch:
        patch.setattr(key_module, "_version", lambda name: "0.1")
        assert key(small) != plain
    with monkeypatch.context() as patch:
        patch.setattr(key_module, "engine_sources_sha256", lambda: "other")
        assert key(small) != plain
    assert key(small) == plain


def test_weights_are_not_read_into_tensors(
    small: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(checkpoint, "load_state", refuse)
    monkeypatch.setattr(checkpoint, "load_checkpoint", refuse)
    assert len(key(small)) == 64


def test_shapes_are_rounded_as_a_run_rounds_them(small: dict[str, str]) -> None:
    request = ExportRequest(
        backbone=small["backbone"], chunk=3, tile=((50, 20), (8, 8)), batch=(2, 1), to="onnx"
    )
    recipe = make_recipe(request)
    assert recipe.facts is not None
    assert recipe.facts.buckets == (Bucket(4, 24, 56, (1, 2)), Bucket(4, 8, 8, (1, 2)))


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"backbone": "minni"}, ConfigError, "did you mean 'mini'"),
        ({"backbone": "absent.safetensors"}, EngineError, "no weights at absent.safetensors"),
        ({"sr": "mini-x3"}, ConfigError, "mini-x2, mini-x4"),
        ({"prompt": "sharp"}, ConfigError, "clean, degraded, null"),
        ({"vae": "tiny"}, ConfigError, "vae is 'tiny': mini works on pixels"),
        ({"prompt_embeds": "e.safetensors"}, ConfigError, "prompt_embeds is 'e.safetensors'"),
        ({"device": "gpu"}, ConfigError, "device is 'gpu'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_errors(small: dict[str, str], settings: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        key(small, **settings)
