"""From a name to a model and its family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtg_restore.engine.backbones import FAMILIES, locate
from dtg_restore.engine.checkpoint import EMBEDDED
from dtg_restore.engine.errors import ConfigError, EngineError


def test_embedded() -> None:
    assert locate("mini") == ("mini", EMBEDDED / "mini.safetensors")


def test_single_files_are_told_apart(tmp_path: Path, weights: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    assert locate(str(weights)).family == "mini"
    assert locate(str(tmp_path / "other.safetensors")).family == "wan"


@pytest.mark.parametrize(
    ("family", "name"), [(f.name, c) for f in FAMILIES.values() for c in f.classes]
)
@pytest.mark.parametrize("file", ["model_index.json", "config.json"])
def test_folder_says_its_class(tmp_path: Path, family: str, name: str, file: str) -> None:
    (tmp_path / file).write_text(json.dumps({"_class_name": name}))
    assert locate(str(tmp_path)) == (family, tmp_path)


def test_no_class_belongs_to_two_families() -> None:
    classes = [name for family in FAMILIES.values() for name in family.classes]
    assert len(classes) == len(set(classes)) > 3


def test_folder_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(EngineError, match=r"'FluxPipeline', which is not known: .*WanPipeline"):
        locate(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_damaged_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(EngineError, match=r"model_index\.json names no class"):
        locate(str(tmp_path))


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no folder of a model"):
        locate(str(tmp_path))


def test_neither_file_nor_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mini'"):
        locate("mimi")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"notes\.txt is no backbone"):
        locate(str(tmp_path / "notes.txt"))


def test_hub_id_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        EngineError, match="some/model is no folder here and cannot be had from the hub"
    ):
        locate("some/model")
