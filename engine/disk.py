"""What the system says where a file cannot be written, and waiting for the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

# What the system says where a file cannot be written; anything else is no matter of the disk.
REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
}


def reason(error: Exception) -> str:
    """Why the system or FFmpeg refused, in words."""
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def refusals_named(target: Path) -> Iterator[None]:
    """A disk that is full, or may not be written, becomes an InputError that names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS or _elsewhere(error.filename, target.parent):
            raise
        in_the_way = error.filename if _is_hidden_file(error.filename) else None
        said = f"{in_the_way}: {reason(error)}" if in_the_way else reason(error)
        raise InputError(f"cannot write {target}: {said}") from error


def sync(path: Path) -> None:
    """Put the content of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    with suppress(OSError):
        sync(path)


def _is_hidden_file(name: object) -> bool:
    """Whether it is there, and nobody would look for it."""
    return isinstance(name, str) and "/." in name and os.path.exists(name)


def _elsewhere(name: object, folder: Path) -> bool:
    return isinstance(name, str) and not os.path.abspath(name).startswith(os.path.abspath(folder))
