"""Folders that appear whole or not at all, locks, and the cache of bundles."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtg_restore.engine.bundle.hashes import file_sha256
from dtg_restore.engine.bundle.manifest import FileFacts, Manifest, write_manifest
from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.export import store
from dtg_restore.export.folder import writing_folder

DAY = 86400


def put(name: str, age: float = 0.0) -> Path:
    """A bundle in the cache that was made, and used last, so many days ago."""
    key = name.ljust(64, "0")
    with store.lock_of(key, lambda: None), store.writing(key) as partial:
        (partial / "upscale.onnx").write_bytes(b"graph")
        files = {"upscale.onnx": FileFacts(file_sha256(partial / "upscale.onnx"), 5)}
        write_manifest(partial, Manifest(key, "onnx", "cpu", "fp32", {}, {}, {}, {}, files))
    made = store.folder_of(key)
    when = time.time() - age * DAY
    for path in (*made.iterdir(), made.with_name(f"{made.name}.lock")):
        os.utime(path, (when, when))
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "b", replace=False) as partial:
        (partial / "file").write_text("new")
        assert not (tmp_path / "b").exists() and partial.parent == tmp_path
    assert names(tmp_path) == ["b"] and (tmp_path / "b" / "file").read_text() == "new"


def test_a_signal_before_the_folder_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 1  # it has been made
        raise KeyboardInterrupt

    monkeypatch.setattr("dtg_restore.export.folder.lock", interrupted)
    with pytest.raises(KeyboardInterrupt), writing_folder(tmp_path / "b", True):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit()])
def test_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), writing_folder(tmp_path / "b", replace=True) as partial:
        (partial / "file").touch()
        raise error
    assert names(tmp_path) == []


def test_another_one_is_replaced_only_when_asked(tmp_path: Path) -> None:
    for replace, text in ((False, "old"), (True, "new")):
        with writing_folder(tmp_path / "b", replace) as partial:
            (partial / "file").write_text(text)
    assert (tmp_path / "b" / "file").read_text() == "new" and names(tmp_path) == ["b"]
    with (
        pytest.raises(InputError, match="cannot write .*b"),
        writing_folder(tmp_path / "b", replace=False),
    ):
        pass
    assert names(tmp_path) == ["b"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_refusals_of_the_system_are_one_line(tmp_path: Path, number: int) -> None:
    with pytest.raises(InputError) as caught, writing_folder(tmp_path / "b", True):
        raise OSError(number, os.strerror(number), str(tmp_path / "b" / "file"))
    assert str(caught.value) == f"cannot write {tmp_path / 'b'}: {os.strerror(number)}"
    assert names(tmp_path) == []


def test_a_compiler_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kind in ((0, InputError), (2**30, EngineError)):
        with monkeypatch.context() as patch, pytest.raises(kind):
            patch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            with writing_folder(tmp_path / "b", True):
                raise EngineError("ld: final link failed")
        assert names(tmp_path) == []


def test_other_errors_of_files_are_not_the_disks(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing_folder(tmp_path / "b", True):
        raise PermissionError(errno.EACCES, "not yours", "/somewhere/weights")
    with pytest.raises(FileNotFoundError), writing_folder(tmp_path / "b", True):
        (tmp_path / "absent").read_text()


def test_leftovers_are_swept_and_work_under_way_is_not(tmp_path: Path) -> None:
    (tmp_path / ".b.dead.part").mkdir()
    (tmp_path / ".b.dead.part" / "file").touch()
    (tmp_path / ".other.dead.part").mkdir()
    with (
        writing_folder(tmp_path / "b", True) as alive,
        writing_folder(tmp_path / "b", True) as second,
    ):
        assert alive.exists() and second.exists()
        assert names(tmp_path) == sorted([".other.dead.part", alive.name, second.name])
    assert names(tmp_path) == [".other.dead.part", "b"]


# -- the cache ------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write"), store.lock_of("a" * 64, None):
        pass


def test_entries(cache: Path) -> None:
    assert store.entries() == []
    put("old", age=3)
    put("new")
    (cache / "damaged").mkdir()
    (cache / ".gone.1234.part").mkdir()
    found = {entry.name.rstrip("0"): entry for entry in store.entries()}
    assert list(found)[-1] == "old" and set(found) == {"old", "new", "damaged"}
    assert found["damaged"].manifest is None
    manifest = found["new"].manifest
    assert manifest is not None and manifest.key == "new".ljust(64, "0")
    assert found["new"].bytes == sum(f.stat().st_size for f in found["new"].folder.iterdir())
    assert found["old"].used == pytest.approx(time.time() - 3 * DAY, abs=60)


def test_a_run_counts_as_use(cache: Path) -> None:
    folder = put("old", age=9)
    now = time.time()
    os.utime(folder / "upscale.onnx", (now, now - 9 * DAY))  # read, not written
    assert store.prune(older_than=5) == ([], [])
    os.utime(folder / "manifest.json", (now, now - 9 * DAY))  # as listing does
    os.utime(folder / "upscale.onnx", (now - 9 * DAY, now - 9 * DAY))
    assert len(store.prune(older_than=5)[0]) == 1


def test_prune(cache: Path) -> None:
    for name, age in (("aa1", 0), ("aa2", 3), ("b", 20)):
        put(name, age)
    for wrong, says in (("c", "no bundle"), ("", "no bundle"), ("aa", "more than one")):
        with pytest.raises(ConfigError, match=says):
            store.prune([wrong])
    removed, busy = store.prune(["aa1"])
    assert [e.name.rstrip("0") for e in removed] == ["aa1"] and busy == []
    assert [e.name.rstrip("0") for e in store.prune(older_than=10)[0]] == ["b"]
    assert [e.name.rstrip("0") for e in store.prune(everything=True)[0]] == ["aa2"]
    assert names(cache) == []


def test_prune_leaves_what_is_held(
    cache: Path, holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    folder = put("busy")
    process = holder(folder.with_name(f"{folder.name}.lock"))
    try:
        removed, busy = store.prune(everything=True)
        assert removed == [] and [entry.folder for entry in busy] == [folder]
        assert folder.is_dir()
    finally:
        process.kill()
        process.wait()
    assert len(store.prune(everything=True)[0]) == 1


def test_prune_sweeps(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / ".key.1234.part").mkdir()
    (cache / "key.lock").touch()
    store.prune(older_than=1)
    assert names(cache) == []
