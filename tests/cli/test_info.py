"""`dtg-restore info`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from dtg_restore.cli import machine
from dtg_restore.engine import checkpoint


def info(cli) -> dict:
    result = cli("info", "--json")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


def test_lists_everything_with_reasons(cli) -> None:
    facts = info(cli)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["hardware"]["memory_bytes"] > 1e8
    assert bool(facts["hardware"]["gpus"]) != bool(facts["hardware"]["gpu_reason"])
    assert [row["name"] for row in facts["backbones"]] == ["mini"]
    assert [(row["name"], row["scale"]) for row in facts["sr"]] == [("mini-x2", 2), ("mini-x4", 4)]
    assert "eager" in [row["name"] for row in facts["runtimes"]]
    assert {row["name"] for row in facts["packages"]} == {
        "triton", "tensorrt", "onnxruntime", "flash-attn", "xformers", "sageattention"
    }  # fmt: skip
    rows = [
        row for key in ("backbones", "sr", "runtimes", "codecs", "packages") for row in facts[key]
    ]
    rows += [way for op in facts["kernels"]["ops"] for way in op["implementations"]]
    assert all(row["available"] != bool(row["reasons"]) for row in rows)


def test_weights_present_or_not(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED", tmp_path)
    (tmp_path / "mini-x2.safetensors").write_bytes(b"0" * 2000)
    present, absent = info(cli)["sr"]
    assert present["available"] and present["weights"] == str(tmp_path / "mini-x2.safetensors")
    assert not absent["available"] and "mini-x4.safetensors" in absent["reasons"][0]


def test_a_package_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn.py").write_text("raise OSError('no such library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    row = machine.package("flash_attn")
    assert not row["available"] and "OSError: no such library" in row["reasons"][0]


def test_bad_choice_of_kernels_is_shown(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTG_KERNELS", "magic")
    assert "magic" in info(cli)["kernels"]["environment_error"]
    result = cli("info")
    assert result.code == 0 and "magic" in result.out


def test_for_people(cli) -> None:
    lines = cli("info").out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "Hardware", "Versions", "Backbones", "Super-resolution",
        "Families of backbones, by path or hub id", "Runtimes", "Codecs", "Optional packages",
        "Kernels",
    ]  # fmt: skip
