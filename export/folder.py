"""Folders that appear under their name complete, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..engine.disk import refusals_named, sync, sync_folder
from ..engine.errors import EngineError, InputError
from ..engine.lock import is_there, lock, try_lock

PART = ".part"
SPARE = 2**20  # bytes: with less, the words that a compiler has for it are those of a full disk


@contextmanager
def writing_folder(target: Path, replace: bool) -> Iterator[Path]:
    """A hidden folder beside `target`, flushed and renamed to it at the end, or removed.

    What killed processes have left of the same kind is removed first: a folder that is being
    written is locked, and its lock ends with its process.
    """
    with refusals_named(target):
        sweep(target.parent, target.name)
        partial = _hidden(target)
        descriptor = None
        try:  # from before it is there: a signal may come between any two lines
            descriptor = _made_and_locked(partial)
            yield partial
            flush(partial)
            _put_in_place(partial, target, replace)
        except BaseException as error:
            is_full = isinstance(error, EngineError) and shutil.disk_usage(partial).free < SPARE
            shutil.rmtree(partial, ignore_errors=True)
            if is_full:
                raise InputError(f"cannot write {target}: the disk is full") from error
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)


def sweep(folder: Path, name: str = "*") -> int:
    """Remove what killed processes have left in `folder` of writing `name`; how many there were."""
    count = 0
    for partial in folder.glob(f".{name}.*{PART}"):
        with suppress(OSError):
            descriptor = os.open(partial, os.O_RDONLY)
            try:
                if try_lock(descriptor):
                    shutil.rmtree(partial)
                    count += 1
            finally:
                os.close(descriptor)
    return count


def flush(folder: Path) -> None:
    """Wait until everything in `folder` is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _hidden(target: Path) -> Path:
    """A name beside `target` that is nobody else's, and that `sweep` knows."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{PART}")


def _made_and_locked(partial: Path) -> int:
    """Make the folder; the descriptor that holds its lock."""
    while True:
        partial.mkdir()
        with suppress(FileNotFoundError):  # swept between the two calls
            descriptor = os.open(partial, os.O_RDONLY)
            lock(descriptor)
            if is_there(descriptor, partial):
                return descriptor
            os.close(descriptor)


def _put_in_place(partial: Path, target: Path, replace: bool) -> None:
    if replace and target.exists():
        old = _hidden(target)
        os.rename(target, old)
        try:
            os.rename(partial, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(partial, target)
    sync_folder(target.parent)
