"""`dtg-restore cache`: what exports have kept, listed and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtg_restore.export import build as build_module
from dtg_restore.export import store


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundles in an empty cache; nothing is traced."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DTG_CACHE", str(folder))

    def compile_stage(job) -> tuple:
        (job.folder / job.stage.name).write_text(job.stage.name)
        return ((job.stage.name,), {}, {}, None)

    monkeypatch.setattr(build_module, "compile_stage", compile_stage)
    return folder / "bundles"


@pytest.fixture
def bundles(cli, files, cache: Path) -> list[str]:
    """Names of two bundles: a whole one, and one without a backbone that is 10 days old."""
    options = ["--to", "onnx", "--device", "cpu", "--progress", "none"]
    shapes = ["--tile", "24x24,32x32", "--chunk", "4", "--batch", "1,2"]
    assert cli("export", *files.models, *shapes, *options).code == 0
    (whole,) = (entry.name for entry in store.entries())
    assert cli("export", "--backbone", "none", "--sr", files.sr, *options).code == 0
    (part,) = (entry.name for entry in store.entries() if entry.name != whole)
    before = time.time() - 10 * 86400
    for path in (*(cache / part).iterdir(), cache / f"{part}.lock"):
        os.utime(path, (before, before))
    return [whole, part]


def left() -> set[str]:
    return {entry.name for entry in store.entries()}


def test_list(cli, bundles: list[str], cache: Path) -> None:
    result = cli("cache", "list")
    assert (result.code, result.err) == (0, "")
    whole, part, total = result.out.splitlines()
    assert whole.startswith(
        f"{bundles[0]}  mini + sr, onnx in fp32 on cpu, 4x24x24:1,2 4x32x32:1,2"
    )
    assert part.startswith(f"{bundles[1]}  sr, onnx in fp32 on cpu, ")
    assert part.endswith("made 10 days ago, used 10 days ago")
    assert total.startswith("2 bundles, ") and total.endswith(f" in {cache}")


def test_list_as_json(cli, bundles: list[str], cache: Path) -> None:
    facts = json.loads(cli("cache", "list", "--json").out)
    assert facts["folder"] == str(cache)
    whole, part = facts["bundles"]
    assert (whole["key"], part["key"]) == tuple(bundles)
    assert whole["models"] == {"backbone": "mini", "sr": "sr"} and part["buckets"] == []
    assert whole["buckets"][0] == {"frames": 4, "height": 24, "width": 24, "batches": [1, 2]}
    assert (whole["runtime"], whole["precision"], whole["device"]) == ("onnx", "fp32", "cpu")
    assert whole["bytes"] > part["bytes"] > 0
    assert part["used"] < whole["used"] <= time.time()


def test_what_is_damaged_is_listed(cli, bundles: list[str], cache: Path) -> None:
    (cache / bundles[0] / "manifest.json").write_text("{")
    assert f"{bundles[0]}  damaged, " in cli("cache", "list").out
    assert cli("cache", "prune", bundles[0]).code == 0
    assert left() == {bundles[1]}


def test_an_empty_cache(cli, cache: Path) -> None:
    assert cli("cache", "list").out == f"0 bundles, 0 B in {cache}\n"
    assert cli("cache", "prune", "--all").out == "removed 0 bundles, 0 B\n"


def test_prune(cli, bundles: list[str]) -> None:
    result = cli("cache", "prune", "--older-than", "5.5")
    assert result.code == 0 and result.out.startswith("removed 1 bundle, ")
    assert left() == {bundles[0]}
    assert cli("cache", "prune", bundles[0][:6]).out.startswith("removed 1 bundle, ")
    assert left() == set()


def test_prune_all(cli, bundles: list[str]) -> None:
    assert cli("cache", "prune", "--all").out.startswith("removed 2 bundles, ")
    assert left() == set()


def test_prune_leaves_what_is_held(cli, bundles: list[str]) -> None:
    # Locks belong to open files, so that this one keeps out our own command as well.
    with store.lock_of(bundles[0], None):
        result = cli("cache", "prune", "--all")
    assert f"{bundles[0]} stays: another process works on it\n" in result.out
    assert left() == {bundles[0]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of KEY, --older-than and --all"),
        (["--all", "abc"], "one of KEY, --older-than and --all"),
        (["--older-than", "-1"], "--older-than is -1"),
        (["--older-than", "nan"], "--older-than is nan"),
        (["zzz"], "begins with 'zzz'"),
    ],
)
def test_errors(cli, bundles: list[str], arguments: list[str], says: str) -> None:
    result = cli("cache", "prune", *arguments)
    assert (result.code, result.out) == (2, "") and says in result.err
    assert left() == set(bundles)


def test_no_torch_is_loaded() -> None:
    """It takes longer than all that the command does."""
    code = (
        "import sys; from dtg_restore.cli.main import main; main(['cache', 'list']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
