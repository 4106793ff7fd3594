"""A file that appears under its name complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from ..errors import InputError


def reason(error: Exception) -> str:
    """Why the system or FFmpeg refused, in words."""
    return getattr(error, "strerror", None) or str(error)


class AtomicFile:
    """Reserves a hidden temporary name beside `target`, with the same suffix.

    Raises
    ------
    InputError : the folder is missing or not writable, or `target` exists and `overwrite` is off.
    """

    def __init__(self, target: str | Path, overwrite: bool):
        self.target = Path(target)
        if self.target.is_dir():
            raise InputError(f"{target} is a folder")
        if self.target.exists() and not overwrite:
            raise InputError(f"{target} exists already, and overwrite is off")
        if not self.target.parent.is_dir():
            raise InputError(f"cannot write {target}: there is no folder {self.target.parent}")
        stem = f".{self.target.stem}.{secrets.token_hex(4)}.part"
        self.path = self.target.with_name(stem + self.target.suffix)
        try:
            self.path.touch(exist_ok=False)
        except OSError as error:
            raise InputError(f"cannot write {target}: {reason(error)}") from None

    def commit(self) -> None:
        """Flush to the disk, then rename."""
        try:
            _fsync(self.path, os.O_RDWR)
            os.replace(self.path, self.target)
            with contextlib.suppress(OSError):  # not every system syncs folders
                _fsync(self.target.parent, os.O_RDONLY)
        except OSError as error:
            self.abort()
            raise InputError(f"cannot write {self.target}: {reason(error)}") from None
        except BaseException:  # a signal
            self.abort()
            raise

    def abort(self) -> None:
        self.path.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Put a text under a name, replacing what exists; InputError where it cannot be written."""
    file = AtomicFile(target, overwrite=True)
    try:
        file.path.write_text(text, encoding="utf-8")
    except OSError as error:
        file.abort()
        raise InputError(f"cannot write {target}: {reason(error)}") from None
    except BaseException:
        file.abort()
        raise
    file.commit()


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
