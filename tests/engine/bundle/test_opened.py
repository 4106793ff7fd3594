"""A bundle that is not whole, or not for this machine, is refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.backbones import load_backbone, locate
from dtg_restore.engine.bundle import damage, opened
from dtg_restore.engine.bundle.manifest import MANIFEST, read_manifest, write_manifest
from dtg_restore.engine.bundle.opened import open_bundle
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.restorer import Restorer

CPU = torch.device("cpu")
SCALE = "upscale.onnx"
Spoil = Callable[[Path], Any]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def flip_bit(file: Path, place: int = 100) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def change(folder: Path, **values: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder), **values))


def test_engines_open_once_and_when_they_are_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, opens = open_bundle(copy, CPU), []
    open_engine = opened.open_engine
    monkeypatch.setattr(opened, "open_engine", lambda *args: opens.append(1) or open_engine(*args))
    assert len(bundle.engines) == len(bundle.manifest.components) and not opens
    assert bundle.engines["upscale"] is bundle.engines["upscale"] and opens == [1]
    with pytest.raises(EngineError, match=r"has no component velocity\.1"):
        bundle.engines["velocity.1"]


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (lambda folder: flip_bit(folder / SCALE), rf"{SCALE} is damaged: its SHA-256 differs"),
        (lambda folder: (folder / SCALE).unlink(), rf"{SCALE} is missing"),
        (
            lambda folder: (folder / SCALE).write_bytes((folder / SCALE).read_bytes()[:-1]),
            rf"{SCALE} has \d+ bytes, not \d+",
        ),
        (lambda folder: flip_bit(folder / MANIFEST, 60), f"{MANIFEST} is damaged: its sum differs"),
        (
            lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-9]),
            f"{MANIFEST} is damaged",
        ),
        (lambda folder: (folder / MANIFEST).unlink(), "writes last; export it again"),
        (lambda folder: change(folder, format=2), "format 2, and 1 is read: export it again"),
        (lambda folder: change(folder, device="cuda"), "for device cuda, and this one is cpu"),
        (
            lambda folder: change(folder, needs={"onnxruntime": ">=99"}),
            "does not fit this machine: onnxruntime",
        ),
        (
            lambda folder: change(folder, needs={"isa": ["moonbeam"]}),
            "does not fit this machine: isa.*moonbeam",
        ),
        (lambda folder: change(folder, files={}), "needs .*, of which there is no sum"),
    ],
)
def test_what_is_wrong_is_named(copy: Path, spoil: Spoil, names: str) -> None:
    open_bundle(copy, CPU)  # what was right before is looked at again where it has changed
    spoil(copy)
    with pytest.raises(EngineError, match=names) as error:
        open_bundle(copy, CPU)
    assert str(copy) in str(error.value)


def test_sums_are_made_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    file_sha256 = damage.file_sha256
    monkeypatch.setattr(damage, "file_sha256", lambda file: made.append(file) or file_sha256(file))
    open_bundle(copy, CPU)
    count = len(made)
    open_bundle(copy, CPU)
    assert count == len(made) == len(read_manifest(copy).files)


def test_a_runtime_that_cannot_execute_it(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="runtime is 'aot'.*ort"):
        open_bundle(bundle, CPU, "aot")


def test_a_manifest_makes_a_folder_a_bundle(copy: Path) -> None:
    assert locate(str(copy)).family == "bundle"
    (copy / MANIFEST).unlink()
    with pytest.raises(EngineError, match="no manifest.json, which an export writes last"):
        locate(str(copy))
    with pytest.raises(EngineError, match="is no bundle"):
        Restorer.open(copy)


@pytest.mark.parametrize("part", ["backbone", "codec", "sr"])
def test_a_part_that_it_has_not(copy: Path, part: str) -> None:
    models = dict(read_manifest(copy).models)
    del models[part]
    change(copy, models=models)
    with pytest.raises(EngineError, match="holds no"):
        Restorer.load(backbone=str(copy), sr=str(copy), device="cpu")


def test_weights_of_another_class_are_no_facts(copy: Path) -> None:
    models = read_manifest(copy).models
    models["backbone"]["facts"]["patch"] = 8
    change(copy, models=models)
    with pytest.raises(EngineError, match="BackboneFacts of a bundle cannot be read"):
        load_backbone(RestoreConfig(backbone=str(copy)), CPU, torch.float32)
