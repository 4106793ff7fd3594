"""Help, version, usage: complete, quick, and without the heavy libraries."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import dtg_restore
from dtg_restore.cli import options
from dtg_restore.engine.config import RestoreConfig

from .conftest import start

# fmt: off
ISSUE = {
    "backbone", "sr", "guidance", "steps", "t-start", "delta0", "alpha0", "schedule", "kappa",
    "space", "alpha-clip", "prompt", "negative-prompt", "seed", "solver", "chunk", "overlap",
    "tile", "tile-overlap", "runtime", "device", "dtype", "frames", "overwrite", "codec", "crf",
    "report", "progress", "offline", "debug", "config", "save-config",
}
EMBED = {
    "output", "prompt", "negative-prompt", "overwrite", "device", "dtype", "offline", "debug",
    "help", "prompt-embeds",
}
EXPORT = {
    "backbone", "vae", "sr", "to", "tile", "chunk", "batch", "dtype", "device", "opset", "vae-tile",
    "prompt-embeds", "prompt", "negative-prompt", "calibrate", "refit", "weight-streaming",
    "hardware-compatible", "version-compatible", "output", "overwrite", "progress", "offline",
    "debug", "help", "bundle", "config", "save-config",
}
# fmt: on
MORE = {
    "no-alpha-clip",
    "full-chunks",
    "no-full-chunks",
    "tile-batch",
    "tau-floor",
    "shift",
    "shots",
    "color-match",
    "help",
}
FILES = {"resume", "no-resume", "chroma", "color-space", "output-color-space"}
SPEED = {"elide-tol", "reuse-tol", "cache-tol", "branches", "attention", "threads"}
MODELS = {"bundle", "vae", "vae-tile", "prompt-embeds", "offload", "weights"}


def test_help_has_every_option(cli) -> None:
    result = cli("restore", "--help")
    assert (result.code, result.err) == (0, "")
    assert set(re.findall(r"--([a-z0-9-]+)", result.out)) == ISSUE | MORE | FILES | MODELS | SPEED
    assert "backbone's own" in result.out and "WxH" in result.out


def test_every_setting_is_an_option() -> None:
    listed = [name for rows in options.SETTINGS.values() for name in rows]
    assert sorted(listed) == sorted(field.name for field in fields(RestoreConfig))


def test_help_of_embed(cli) -> None:
    result = cli("embed", "--help")
    assert (result.code, result.err) == (0, "")
    assert set(re.findall(r"--([a-z0-9-]+)", result.out)) == EMBED


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["export"], EXPORT),
        (["inspect"], {"json", "debug", "help"}),
        (["shots"], {"output", "overwrite", "shots", "progress", "debug", "help"}),
        (["cache", "list"], {"json", "debug", "help"}),
        (["cache", "prune"], {"older-than", "all", "debug", "help"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_of_bundles(cli, command: list[str], options: set[str]) -> None:
    result = cli(*command, "--help")
    assert (result.code, result.err) == (0, "")
    assert set(re.findall(r"--([a-z0-9-]+)", result.out)) == options


def test_commands(cli) -> None:
    result = cli("--help")
    assert result.code == 0 and "Exit codes" in result.out
    commands = (
        "restore",
        "plan",
        "shots",
        "export",
        "inspect",
        "cache",
        "embed",
        "info",
        "--version",
    )
    assert all(name in result.out for name in (*commands, "--version"))
    shown = cli()
    assert shown.code == 2 and "Usage" in shown.out + shown.err
    assert cli("--version").out == f"dtg-restore {dtg_restore.__version__}\n"
    assert cli("restor").code == 2


LIGHT = """
import sys
from dtg_restore.cli.main import main
code = main({arguments!r})
heavy = {{"torch", "numpy", "av", "safetensors"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["restore", "--help"], 0),
        (["embed", "--help"], 0),
        (["embed", "model", "-o", "file.txt"], 2),
        (["restore", "a.mp4", "b.mp4", "--steps", "0"], 2),
        (["restore", "a.mp4", "b.mp4", "--tile", "big"], 2),
        (["restore", "a.mp4", "b.mp4", "--vae-tile", "big"], 2),
        (["restore", "a.mp4", "b.mp4", "--codec", "tiny", "--vae", "other"], 2),
        (["plan", "a.mp4", "--bundle", "b", "--backbone", "mini"], 2),
        (["export", "--help"], 0),
        (["export", "--to", "openvino"], 2),
        (["export", "--tile", "big"], 2),
        (["export", "--refit"], 2),
        (["inspect", "--help"], 0),
        (["shots", "--help"], 0),
        (["cache", "prune"], 2),
    ],
)
def test_answers_without_the_heavy_libraries(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    process = start(cwd=tmp_path, code=LIGHT.format(arguments=arguments))
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err


def test_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    process = start("--help", cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.wait(timeout=300), process.stderr.read()) == (0, "")
