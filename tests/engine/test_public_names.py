"""The package is cheap to import, and its public names come when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dtg_restore
from dtg_restore.engine import config, errors, restorer

HEAVY = ("torch", "numpy", "av", "rich", "typer", "triton")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    ["import dtg_restore", "from dtg_restore import DTG, RestoreConfig, ConfigError, InputError"],
)
def test_import_is_light(statement: str) -> None:
    code = f"import sys\n{statement}\nprint([n for n in {HEAVY!r} if n in sys.modules])"
    assert run(code) == "[]"


def test_names_are_those_of_the_engine() -> None:
    assert dtg_restore.Restorer is restorer.Restorer
    assert dtg_restore.DTG is config.DTG
    assert dtg_restore.RestoreConfig is config.RestoreConfig
    for name in ("DTGError", "ConfigError", "InputError", "EngineError", "OutOfMemory"):
        assert getattr(dtg_restore, name) is getattr(errors, name)
    assert dtg_restore.Interrupted is errors.Interrupted


def test_all_is_complete_and_listed() -> None:
    assert set(dtg_restore.__all__) <= set(dir(dtg_restore))
    assert all(getattr(dtg_restore, name) is not None for name in dtg_restore.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="Restore_r"):
        _ = dtg_restore.Restore_r


def test_version() -> None:
    assert dtg_restore.__version__.count(".") == 2
