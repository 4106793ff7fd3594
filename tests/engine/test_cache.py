"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtg_restore.engine.cache import cache_folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"DTG_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/prompts"),
        ({"DTG_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/dtg-restore/prompts"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/dtg-restore/prompts"),
    ],
)
def test_the_first_that_is_set(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("DTG_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("prompts") == Path(folder)


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DTG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder("prompts") == tmp_path / "dtg-restore" / "prompts"
    assert list(tmp_path.iterdir()) == []
