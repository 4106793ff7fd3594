"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .disk import refusals_named

# Where a file system has no locks, nobody can hold one.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(
    path: Path, wait: Callable[[], None] | None, target: Path | None = None
) -> Iterator[bool]:
    """Hold the lock file `path` alone among all processes; it is made where it is not there.

    `wait` is called once before we wait for another process; None: we do not wait, and the value
    is whether the lock was had.  The file's time of change is when it was last waited for.
    InputError, naming `target` where it is given, where the file cannot be written.
    """
    with refusals_named(target or path):
        descriptor = _opened(path)
    try:
        held = try_lock(descriptor)
        if not held and wait is None:
            yield False
            return
        if not held:
            wait()  # type: ignore[misc]
            lock(descriptor)
        if not is_there(descriptor, path):  # whoever held it has removed it
            with locked(path, wait, target) as held:
                yield held
            return
        if wait is not None:
            os.utime(descriptor)
        yield True
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> None:
    """Wait for the lock of an open file; it ends when the file is closed, or with the process."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int) -> bool:
    """Whether the lock was had at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def is_there(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _opened(path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # also said of folders that take none, as of /proc
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from error
        with suppress(FileNotFoundError):  # the folder was removed between the two calls
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
