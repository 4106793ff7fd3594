"""Bundles from a request to a folder: what is built, what is taken from the cache, what fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.bundle.damage import damage as damaged
from dtg_restore.engine.bundle.manifest import MANIFEST, read_manifest
from dtg_restore.engine.errors import ConfigError, EngineError, InputError, Interrupted
from dtg_restore.engine.sr import load_sr
from dtg_restore.export import build as build_module
from dtg_restore.export import store
from dtg_restore.export.build import build_bundle
from dtg_restore.export.meter import Step
from dtg_restore.export.request import ExportRequest

pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
pytestmark = pytest.mark.usefixtures("cache")

CPU = torch.device("cpu")
FRAMES = torch.rand(2, 3, 10, 14, generator=torch.Generator().manual_seed(0))


def sr_request(small: dict[str, str], **settings: Any) -> ExportRequest:
    given = {"backbone": "none", "sr": small["sr"], "to": "onnx", "device": "cpu"}
    return ExportRequest(**given | settings)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that were compiled, by a stand-in that writes a few bytes."""
    seen: list[str] = []

    def compile_stage(job: Any) -> tuple[Any, ...]:
        name = job.stage.name
        seen.append(name)
        (job.folder / f"{name}.onnx").write_text(name)
        return ((f"{name}.onnx",), {}, {}, "0")

    monkeypatch.setattr(build_module, "compile_stage", compile_stage)
    return seen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- what is built --------------------------------------------------------------------------------


def test_sr_alone(small: dict[str, str], tmp_path: Path) -> None:
    steps: list[Step] = []
    built = build_bundle(sr_request(small), steps.append, target=tmp_path / "b")
    assert not built.was_cached and built.folder == tmp_path / "b"
    manifest = read_manifest(built.folder)
    assert manifest == built.manifest and list(manifest.models) == ["sr"]
    assert names(built.folder) == [MANIFEST, "upscale.onnx"]
    assert [(s.stage, s.done, s.total, s.component) for s in steps] == [
        ("load", 0, 1, ""),
        ("export", 0, 1, "upscale"),
        ("check", 1, 1, ""),
    ]
    assert [step.fraction for step in steps] == [0.0, 0.0, 1.0]
    eager, engine = load_sr(small["sr"]), load_sr(tmp_path / "b", CPU)
    assert torch.allclose(engine.upscale(FRAMES), eager.upscale(FRAMES), atol=1e-5)


def test_backbone_alone_has_every_bucket(
    small: dict[str, str], tmp_path: Path, compiled: list[str]
) -> None:
    request = ExportRequest(
        backbone=small["backbone"],
        sr="none",
        to="onnx",
        device="cpu",
        tile=((32, 16), (16, 16)),
        chunk=4,
        batch=(2, 1),
        prompt="degraded",
    )
    manifest = build_bundle(request, target=tmp_path / "b").manifest
    assert compiled == list(manifest.components)
    assert compiled == [
        "condition.0",
        *("velocity.0.1x4x16x32", "velocity.0.2x4x16x32"),
        *("velocity.0.1x4x16x16", "velocity.0.2x4x16x16"),
    ]
    model = manifest.models["backbone"]
    assert model["facts"]["buckets"][0] == {
        "frames": 4,
        "height": 16,
        "width": 32,
        "batches": [1, 2],
    }
    assert (model["facts"]["prompt"], model["facts"]["negative_prompt"]) == ("degraded", "null")
    assert model["source"]["path"] == small["backbone"] and len(model["source"]["sha256"]) == 64
    assert manifest.models["codec"] == {"kind": "pixels"} and "sr" not in manifest.models
    assert set(manifest.files) == {f"{name}.onnx" for name in compiled}


def test_without_a_target_it_stays_in_the_cache(small: dict[str, str], compiled: list[str]) -> None:
    built = build_bundle(sr_request(small))
    assert built.folder == store.folder_of(built.manifest.key)
    assert [entry.folder for entry in store.entries()] == [built.folder]


# -- the cache ------------------------------------------------------------------------------------


def test_a_second_export_traces_nothing(
    small: dict[str, str], tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_bundle(sr_request(small), target=tmp_path / "a")
    assert compiled == ["upscale"]

    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(build_module, "stages_of", refuse)
    for target in (tmp_path / "a", tmp_path / "b", None):
        again = build_bundle(sr_request(small), target=target)
        assert again.was_cached and again.manifest == first.manifest
    assert compiled == ["upscale"]
    assert names(tmp_path / "a") == names(tmp_path / "b")


def test_another_model_or_precision_is_another_bundle(
    small: dict[str, str], compiled: list[str]
) -> None:
    built = [
        build_bundle(request)
        for request in (
            sr_request(small),
            sr_request(small, sr=small["other sr"]),
            sr_request(small, dtype="bf16"),
        )
    ]
    assert len({b.manifest.key for b in built}) == len(compiled) == 3
    assert [b.manifest.precision for b in built] == ["fp32", "fp32", "bf16"]


def flip(folder: Path) -> None:
    path = folder / "upscale.onnx"
    path.write_bytes(b"X" + path.read_bytes()[1:])


def cut(folder: Path) -> None:
    (folder / "upscale.onnx").write_bytes(b"up")


def lose(folder: Path) -> None:
    (folder / "upscale.onnx").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def flip_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"cpu"', '"cpx"', 1))


@pytest.mark.parametrize("damage", [flip, cut, lose, lose_manifest, flip_manifest])
def test_what_is_damaged_in_the_cache_is_built_again(
    small: dict[str, str],
    tmp_path: Path,
    compiled: list[str],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    first = build_bundle(sr_request(small))
    damage(first.folder)
    again = build_bundle(sr_request(small), target=tmp_path / "b")
    assert not again.was_cached and compiled == ["upscale", "upscale"]
    assert "it is built again" in caplog.text
    assert damaged(tmp_path / "b", again.manifest) == []
    assert build_bundle(sr_request(small)).was_cached


def test_the_bundle_names_the_weights_where_they_are_now(
    small: dict[str, str], tmp_path: Path, compiled: list[str]
) -> None:
    build_bundle(sr_request(small), target=tmp_path / "a")
    moved = str(shutil.copy(small["sr"], tmp_path / "moved.safetensors"))
    again = build_bundle(sr_request(small, sr=moved), target=tmp_path / "a")
    assert again.was_cached
    assert read_manifest(tmp_path / "a").models["sr"]["source"]["path"] == moved


# -- the target -----------------------------------------------------------------------------------


def test_another_bundle_is_replaced_only_when_asked(
    small: dict[str, str], tmp_path: Path, compiled: list[str]
) -> None:
    target = tmp_path / "b"
    first = build_bundle(sr_request(small), target=target)
    other = sr_request(small, sr=small["other sr"])
    with pytest.raises(InputError, match="exists already, and overwrite is off"):
        build_bundle(other, target=target)
    assert len(compiled) == 1 and read_manifest(target) == first.manifest
    second = build_bundle(other, target=target, overwrite=True)
    assert read_manifest(target) == second.manifest != first.manifest
    flip(target)  # of the same key, but not whole
    with pytest.raises(InputError, match="overwrite is off"):
        build_bundle(other, target=target)
    build_bundle(other, target=target, overwrite=True)
    assert damaged(target, second.manifest) == [] and names(tmp_path) == ["b", "cache"]


def test_what_is_no_bundle_is_never_deleted(
    small: dict[str, str], tmp_path: Path, compiled: list[str]
) -> None:
    request = sr_request(small)
    photos, file, mixed = tmp_path / "photos", tmp_path / "file", tmp_path / "mixed"
    photos.mkdir()
    (photos / "dog.png").touch()
    file.touch()
    build_bundle(request, target=mixed)
    (mixed / "notes.txt").touch()
    other = sr_request(small, sr=small["other sr"])
    for target, says in ((photos, "is no bundle"), (file, "is no bundle"), (mixed, "notes.txt")):
        with pytest.raises(InputError, match=says):
            build_bundle(other, target=target, overwrite=True)
    assert (photos / "dog.png").exists() and file.exists() and (mixed / "notes.txt").exists()
    with pytest.raises(InputError, match="there is no folder"):
        build_bundle(request, target=tmp_path / "absent" / "b")
    assert compiled == ["upscale"]
    (tmp_path / "empty").mkdir()
    assert build_bundle(request, target=tmp_path / "empty").was_cached


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), InputError),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), InputError),
        (EngineError("no"), EngineError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_left_of_a_failure(
    small: dict[str, str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    kind: type[BaseException] | None,
) -> None:
    def fail(job: Any) -> None:
        (job.folder / "half").touch()
        raise error

    monkeypatch.setattr(build_module, "compile_stage", fail)
    with pytest.raises(kind or Exception) as caught:
        build_bundle(sr_request(small), target=tmp_path / "b")
    if kind is InputError:
        assert str(caught.value).startswith("cannot write") and "\n" not in str(caught.value)
    assert [name for name in names(cache) if not name.endswith(".lock")] == []
    assert not (tmp_path / "b").exists()


def test_a_full_disk_at_the_copy(
    small: dict[str, str], tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'b'}: No space left"):
        build_bundle(sr_request(small), target=tmp_path / "b")
    assert names(tmp_path) == ["cache"]
    assert build_bundle(sr_request(small)).was_cached  # the work is not lost


def test_cancel(small: dict[str, str], cache: Path, compiled: list[str]) -> None:
    with pytest.raises(Interrupted):
        build_bundle(sr_request(small), cancel=lambda: True)
    assert compiled == [] and [n for n in names(cache) if not n.endswith(".lock")] == []


def test_families_without_an_export(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    index = {"_class_name": "LTXPipeline"}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match="ltx, which has no export: .* mini, wan"):
        build_bundle(ExportRequest(backbone=str(tmp_path / "model"), to="onnx", device="cpu"))


def test_a_bundle_is_not_compiled_again(small: dict[str, str], tmp_path: Path) -> None:
    build_bundle(sr_request(small), target=tmp_path / "b")
    with pytest.raises(ConfigError, match="sr is .*: that is a bundle, which is compiled already"):
        build_bundle(sr_request(small, sr=str(tmp_path / "b")))
