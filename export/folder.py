"""Folders that appear under their name complete, or not at all, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..engine.errors import EngineError, InputError

PART = ".part"
SPARE = 2**20  # bytes: with less, the words that a compiler has for it are those of a full disk
# What the system says where a file cannot be written; anything else is no matter of the disk.
REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
}


@contextmanager
def refusals_named(target: Path) -> Iterator[None]:
    """A disk that is full, or may not be written, becomes an InputError that names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS or _elsewhere(error.filename, target.parent):
            raise
        from ..engine.media.atomic import reason  # its package imports torch

        raise InputError(f"cannot write {target}: {reason(error)}") from error


@contextmanager
def locked(path: Path, wait: Callable[[], None] | None) -> Iterator[bool]:
    """Hold the lock file `path` alone among all processes; it is made where it is not there.

    `wait` is called once before we wait for another process; None: we do not wait, and the value
    is whether the lock was had.  The file's time of change is when it was last waited for.
    """
    descriptor = _opened(path)
    try:
        held = _flock(descriptor)
        if not held and wait is None:
            yield False
            return
        if not held:
            wait()  # type: ignore[misc]
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_there(descriptor, path):  # whoever held it has removed it
            with locked(path, wait) as held:
                yield held
            return
        if wait is not None:
            os.utime(descriptor)
        yield True
    finally:
        os.close(descriptor)


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
                if _flock(descriptor):
                    shutil.rmtree(partial)
                    count += 1
            finally:
                os.close(descriptor)
    return count


def flush(folder: Path) -> None:
    """Wait until everything in `folder` is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hidden(target: Path) -> Path:
    """A name beside `target` that is nobody else's, and that `sweep` knows."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{PART}")


def _made_and_locked(partial: Path) -> int:
    """Make the folder; the descriptor that holds its lock."""
    while True:
        partial.mkdir()
        with suppress(FileNotFoundError):  # swept between the two calls
            descriptor = os.open(partial, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_there(descriptor, partial):
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
    with suppress(OSError):  # not every system syncs folders
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    with refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _elsewhere(name: object, folder: Path) -> bool:
    return isinstance(name, str) and not os.path.abspath(name).startswith(os.path.abspath(folder))


def _is_there(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
