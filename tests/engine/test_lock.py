"""Locks between processes."""

from __future__ import annotations

import errno
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dtg_restore.engine import lock as module
from dtg_restore.engine.lock import locked

Holder = Callable[[Path], subprocess.Popen[str]]


def test_one_process_holds_a_lock_and_it_ends_with_the_process(
    tmp_path: Path, holder: Holder
) -> None:
    path, waited = tmp_path / "a.lock", []
    process = holder(path)
    try:
        with locked(path, None) as held:
            assert not held
        process.send_signal(signal.SIGKILL)
        with locked(path, lambda: waited.append(1)) as held:  # until the process is gone
            assert held
    finally:
        process.kill()
        process.wait()
    assert len(waited) <= 1
    with locked(path, None) as held:
        assert held


def test_a_lock_that_was_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, try_lock, removed = tmp_path / "a.lock", module.try_lock, []

    def remove_first(descriptor: int) -> bool:
        if not removed:
            path.unlink()
            removed.append(path)
        return try_lock(descriptor)

    monkeypatch.setattr(module, "try_lock", remove_first)
    with locked(path, None) as held:
        assert held and path.exists()  # or another process would hold one as well


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    with locked(tmp_path / "a.lock", None) as held:
        assert held


def test_a_folder_that_goes_while_the_lock_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mkdir, calls = tmp_path / "folder" / "lock", Path.mkdir, []

    def gone_at_first(self: Path, **settings: bool) -> None:
        mkdir(self, **settings)
        calls.append(self)
        if len(calls) == 1:
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", gone_at_first)
    with locked(path, None) as held:
        assert held and path.exists() and len(calls) == 2
