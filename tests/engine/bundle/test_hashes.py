"""Hashes follow contents, and what is kept of them is never stale."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dtg_restore.engine.bundle import hashes
from dtg_restore.engine.bundle.hashes import engine_sources_sha256, file_sha256, source_sha256
from dtg_restore.engine.errors import EngineError


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files as they are read; files count as settled at once."""
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "FRESH", -1.0)
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(Path(path).name)
        return file_sha256(path)

    monkeypatch.setattr(hashes, "file_sha256", counted)
    return names


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "a.safetensors").write_bytes(bytes(5000))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("read me")
    return folder


def test_a_file_has_the_hash_of_its_contents(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 7)
    (tmp_path / "x").write_bytes(data)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    for absent in (tmp_path, tmp_path / "y"):
        with pytest.raises(EngineError, match="is no file"):
            file_sha256(absent)


def test_an_unchanged_file_is_not_read_again(model: Path, reads: list[str]) -> None:
    file = model / "transformer" / "a.safetensors"
    first = source_sha256(file)
    assert first == file_sha256(file) == source_sha256(file)
    assert reads == ["a.safetensors"]
    whole = source_sha256(model)
    assert source_sha256(model) == whole
    assert reads == ["a.safetensors", "config.json"]


def test_a_touched_file_is_read_again(model: Path, reads: list[str]) -> None:
    file = model / "config.json"
    first = source_sha256(file)
    os.utime(file, ns=(1, 1))
    assert source_sha256(file) == first
    assert reads == ["config.json"] * 2


@pytest.mark.parametrize("keeps_time", [False, True])
def test_one_byte_changes_the_hash(keeps_time: bool, model: Path, reads: list[str]) -> None:
    file = model / "transformer" / "a.safetensors"
    before, facts = source_sha256(model), file.stat()
    with file.open("r+b") as stream:
        stream.seek(4000)
        stream.write(b"\1")
    if keeps_time:
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert file.stat().st_size == facts.st_size
    assert source_sha256(model) != before


def test_a_fresh_hash_is_not_kept(
    model: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "FRESH", 60.0)
    for _ in range(2):
        source_sha256(model / "config.json")
    assert len(reads) == 2


def test_names_belong_to_a_folder_and_not_to_a_file(model: Path, reads: list[str]) -> None:
    file = model / "transformer" / "a.safetensors"
    alone, whole = source_sha256(file), source_sha256(model)
    renamed = file.rename(file.with_name("b.safetensors"))
    assert source_sha256(renamed) == alone
    assert source_sha256(model) != whole
    renamed.rename(file)
    assert source_sha256(model) == whole


@pytest.mark.parametrize("name", ["README.md", ".git/config.json", "sample.png"])
def test_what_is_no_model_is_left_out(name: str, model: Path, reads: list[str]) -> None:
    before = source_sha256(model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("other")
    assert source_sha256(model) == before


def test_a_link_has_the_hash_of_its_target(model: Path, reads: list[str], tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(model / "transformer" / "a.safetensors")
    before = source_sha256(link)
    assert source_sha256(link.resolve()) == before and len(reads) == 1
    (model / "transformer" / "a.safetensors").write_bytes(b"other")
    assert source_sha256(link) == file_sha256(link) != before


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"0" * 63])
def test_a_damaged_memory_is_made_again(
    data: bytes, model: Path, reads: list[str], tmp_path: Path
) -> None:
    file = model / "config.json"
    first = source_sha256(file)
    (memory,) = (tmp_path / "cache" / "hashes").iterdir()
    memory.write_bytes(data)
    assert source_sha256(file) == first == memory.read_text()


def test_without_a_cache_all_is_computed(model: Path) -> None:
    assert source_sha256(model) == source_sha256(model)  # see `no_cache`


def test_nothing_to_hash_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no weights"):
        source_sha256(tmp_path)
    with pytest.raises(EngineError, match="cannot be read"):
        source_sha256(tmp_path / "absent")


def test_the_engine_is_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_sources_sha256() == engine_sources_sha256()

    def package(name: str, change: Callable[[Path], object] = lambda root: None) -> str:
        root = tmp_path / name
        for part in ("engine/deep", "kernels", "export", "cli"):
            (root / part).mkdir(parents=True)
            (root / part / "x.py").write_text(part)
        change(root)
        monkeypatch.setattr(hashes, "PACKAGE", root)
        return engine_sources_sha256()

    before = package("before")
    assert package("cli", lambda root: (root / "cli/x.py").write_text("other")) == before
    assert (
        package("byte", lambda root: (root / "engine/deep/x.py").write_text("engine/deeq"))
        != before
    )
    assert (
        package("name", lambda root: (root / "kernels/x.py").rename(root / "kernels/y.py"))
        != before
    )
