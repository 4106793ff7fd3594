"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache: a file stands where its folder would be made."""
    path = tmp_path_factory.mktemp("cache") / "file"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTG_CACHE", str(path))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of clips, photos and weights that lie outside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"test material is absent: {folder}")
    return folder
