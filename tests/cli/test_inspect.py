"""`dtg-restore inspect`: what a bundle holds, whether it is whole, whether the machine fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dtg_restore.engine.bundle.manifest import read_manifest, write_manifest
from dtg_restore.export import build as build_module


@pytest.fixture(autouse=True)
def bundle(cli, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose components are a few bytes: nothing is traced."""
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))

    def compile_stage(job) -> tuple:
        (job.folder / f"{job.stage.name}.onnx").write_text(job.stage.name)
        return ((f"{job.stage.name}.onnx",), {}, {}, None)

    monkeypatch.setattr(build_module, "compile_stage", compile_stage)
    shapes = ["--tile", "24x16", "--chunk", "4", "--batch", "1,2"]
    options = ["--to", "onnx", "--device", "cpu", "--progress", "none", "-o", "b"]
    assert cli("export", *files.models, *shapes, *options).code == 0
    return tmp_path / "b"


def test_for_people(cli, files, bundle: Path) -> None:
    result = cli("inspect", "b")
    assert (result.code, result.err) == (0, "")
    key = read_manifest(bundle).key
    for text in (
        key,
        "onnx on cpu in fp32",
        f"mini, from {files.backbone} (sha256 ",
        "4 frames of 24x16, batches of 1, 2",
        "pixels",
        "clean",
        f"sr, x2, from {files.sr} (sha256 ",
        "velocity.0.2x4x16x24, 20 B",
        "onnxruntime >=",
        "whole: every SHA-256 holds",
        "fits",
    ):
        assert text in result.out, text


def test_as_json(cli, bundle: Path) -> None:
    result = cli("inspect", "b", "--json")
    facts = json.loads(result.out)
    assert (result.code, facts["damage"], facts["misfits"]) == (0, [], [])
    assert facts["key"] == read_manifest(bundle).key and facts["bundle"] == "b"
    assert facts["bytes"] == sum(file["bytes"] for file in facts["files"].values())
    assert list(facts["components"]) == [
        "condition.0",
        "velocity.0.1x4x16x24",
        "velocity.0.2x4x16x24",
        "upscale",
    ]


def test_without_a_backbone(cli, files) -> None:
    options = ["--to", "onnx", "--device", "cpu", "--progress", "none", "-o", "s"]
    assert cli("export", "--backbone", "none", "--sr", files.sr, *options).code == 0
    out = cli("inspect", "s").out
    assert "sr, x2" in out and "bucket" not in out and "prompt" not in out


def test_damage(cli, bundle: Path) -> None:
    (bundle / "upscale.onnx").write_text("upscalE")
    (bundle / "condition.0.onnx").unlink()
    result = cli("inspect", "b")
    assert (result.code, result.err) == (4, "")
    problems = "condition.0.onnx is missing; upscale.onnx is damaged: its SHA-256 differs"
    assert problems in result.out and "fits" in result.out
    result = cli("inspect", "b", "--json")
    assert result.code == 4 and len(json.loads(result.out)["damage"]) == 2


def test_a_machine_that_does_not_fit(cli, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, needs={"isa": ["avx1024"], "arch": "vax"}))
    result = cli("inspect", "b")
    assert result.code == 4
    assert "avx1024" in result.out and "vax" in result.out and "every SHA-256 holds" in result.out


@pytest.mark.parametrize("name", ["absent", "cache"])
def test_no_bundle(cli, name: str) -> None:
    result = cli("inspect", name)
    assert (result.code, result.out) == (4, "")
    assert f"{name} is no bundle" in result.err and result.err.count("\n") == 1


def test_a_damaged_manifest(cli, bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"fp32"', '"bf16"', 1))
    result = cli("inspect", "b")
    assert result.code == 4 and "manifest.json is damaged" in result.err
