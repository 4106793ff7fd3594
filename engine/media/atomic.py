"""A file that appears under its name complete, or not at all."""

from __future__ import annotations

import contextlib
import filecmp
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..disk import reason, sync, sync_folder
from ..errors import InputError, InTheWay


class AtomicFile:
    """Reserves a hidden temporary name beside `target`, with the same suffix.

    Parameters
    ----------
    path : the temporary name, on the same disk, instead; what it holds is replaced, and `target`
        is checked by `commit` alone.

    Raises
    ------
    InputError : the folder is missing or not writable, or `target` exists and `overwrite` is off.
    """

    def __init__(self, target: str | Path, overwrite: bool, path: Path | None = None):
        self.target, self._overwrite = Path(target), overwrite
        if path is None:
            check_target(self.target, overwrite)
        self.path = path or hidden_name(self.target, self.target.suffix)
        try:
            self.path.touch(exist_ok=path is not None)
        except OSError as error:
            raise InputError(f"cannot write {target}: {reason(error)}") from None

    @contextlib.contextmanager
    def filled(self) -> Iterator[Path]:
        """The temporary name, for the content: then `commit`, or after an error `abort`.

        A refusal of the system becomes an InputError.
        """
        try:
            yield self.path
        except OSError as error:
            self.abort()
            raise InputError(f"cannot write {self.target}: {reason(error)}") from None
        except BaseException:  # a signal, too
            self.abort()
            raise
        self.commit()

    def commit(self) -> None:
        """Flush to the disk, then rename.

        InputError, too, where another file has come under the name that may not be replaced; one
        of the same bytes is none.
        """
        try:
            sync(self.path)
            if not self._overwrite and not self._is_same():
                check_target(self.target, overwrite=False)
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            self.abort()
            raise InputError(f"cannot write {self.target}: {reason(error)}") from None
        except BaseException:  # a signal
            self.abort()
            raise

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # in a folder that nothing may be removed from
            self.path.unlink(missing_ok=True)

    def _is_same(self) -> bool:
        return self.target.is_file() and filecmp.cmp(self.path, self.target, shallow=False)


def check_target(target: Path, overwrite: bool) -> None:
    """InputError if `target` is a folder or a device, in no folder, or there already and not to be
    replaced."""
    if os.path.isdir(target):  # False, too, for a name that is too long
        raise InputError(f"{target} is a folder")
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{target} is a device or the like: a file of its own is needed")
    if os.path.exists(target) and not overwrite:
        raise InTheWay(f"{target} exists already, and overwrite is off")
    if not os.path.isdir(target.parent):
        raise InputError(f"cannot write {target}: there is no folder {target.parent}")


def hidden_name(target: Path, suffix: str) -> Path:
    """A name beside `target` that nothing has."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{suffix}")


def write_text(file: AtomicFile, text: str) -> None:
    """Give a file its content and its name; InputError where it cannot be written."""
    with file.filled() as path:
        path.write_text(text, encoding="utf-8")
