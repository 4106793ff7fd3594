"""The cache of bundles: one folder a key, one lock a key, nothing half-written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..engine.bundle.manifest import (
    MANIFEST,
    Manifest,
    read_manifest,
    write_manifest,
)
from ..engine.cache import cache_folder
from ..engine.disk import refusals_named
from ..engine.errors import ConfigError, EngineError
from ..engine.lock import locked
from .folder import PART, sweep, writing_folder

SHORT = 24  # digits of a key that name its folder
DAY = 86400.0  # seconds


def root() -> Path:
    return cache_folder("bundles")


def folder_of(key: str) -> Path:
    return root() / key[:SHORT]


def lock_of(key: str, wait: Callable[[], None] | None) -> AbstractContextManager[bool]:
    """See `lock.locked`: whoever holds it alone makes, copies or removes the bundle `key`."""
    return locked(root() / f"{key[:SHORT]}.lock", wait)


def writing(key: str) -> AbstractContextManager[Path]:
    """A folder that becomes the bundle `key`; for the holder of its lock."""
    return writing_folder(folder_of(key), replace=True)


def clear_leftovers() -> None:
    """Remove what killed exports have left in the cache."""
    with refusals_named(root()):
        sweep(root())


def replace_manifest(folder: Path, manifest: Manifest) -> None:
    """For the holder of the bundle's lock."""
    with refusals_named(folder):
        write_manifest(folder, manifest)


@dataclass(frozen=True)
class Entry:
    """A bundle in the cache.

    Parameters
    ----------
    manifest : None where it is damaged, or of another format.
    created, used : seconds since the epoch; it is used by an export or by a run.
    """

    name: str
    folder: Path
    manifest: Manifest | None
    bytes: int
    created: float
    used: float


def entries() -> list[Entry]:
    """What is there, the last used first."""
    if not root().is_dir():
        return []
    found = []
    for folder in root().iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            with suppress(FileNotFoundError):  # another process removes it
                found.append(_entry(folder))
    return sorted(found, key=lambda entry: -entry.used)


def prune(
    names: Sequence[str] = (), older_than: float | None = None, everything: bool = False
) -> tuple[list[Entry], list[Entry]]:
    """Remove bundles from the cache, and what killed exports have left in it.

    Parameters
    ----------
    names : beginnings of keys.
    older_than : days since the last use.
    everything : all of them.

    Returns
    -------
    Those that were removed, and those that another process is busy with, which stay.

    Raises
    ------
    ConfigError : no key, or more than one, begins with a name.
    InputError : they cannot be removed.
    """
    found = entries()
    chosen = [_named(name, found) for name in dict.fromkeys(names)]
    if older_than is not None:
        before = time.time() - older_than * DAY
        chosen += [entry for entry in found if entry.used < before and entry not in chosen]
    if everything:
        chosen = found
    removed: list[Entry] = []
    busy: list[Entry] = []
    clear_leftovers()
    with refusals_named(root()):
        for entry in chosen:
            (removed if _remove(entry) else busy).append(entry)
        _clear_locks()
    return removed, busy


def _named(name: str, found: Sequence[Entry]) -> Entry:
    matches = [entry for entry in found if name and entry.name.startswith(name[:SHORT])]
    if not matches:
        raise ConfigError(f"no bundle in {root()} has a key that begins with {name!r}")
    if len(matches) > 1:
        raise ConfigError(
            f"more than one key begins with {name!r}: {', '.join(e.name for e in matches)}"
        )
    return matches[0]


def _remove(entry: Entry) -> bool:
    with lock_of(entry.name, None) as held:
        if held:
            gone = entry.folder.with_name(f".{entry.name}.gone{PART}")
            with suppress(FileNotFoundError):  # another process was faster
                os.rename(entry.folder, gone)  # it is not opened half-removed
                shutil.rmtree(gone)
            (root() / f"{entry.name}.lock").unlink(missing_ok=True)
        return held


def _clear_locks() -> None:
    """Those of exports that came to nothing."""
    for path in root().glob("*.lock"):
        if not path.with_suffix("").exists():
            with locked(path, None) as held:
                if held and not path.with_suffix("").exists():
                    path.unlink()


def _entry(folder: Path) -> Entry:
    try:
        manifest = read_manifest(folder)
    except EngineError:
        manifest = None
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    index = folder / MANIFEST
    created = (index if index.exists() else folder).stat().st_mtime
    # Runs read the files, exports take the lock; the manifest is read here, too.
    reads = [path.stat().st_atime for path in folder.iterdir() if path.name != MANIFEST]
    lock = folder.with_name(f"{folder.name}.lock")
    takes = [lock.stat().st_mtime] if lock.exists() else []
    used = max([created, *reads, *takes])
    return Entry(folder.name, folder, manifest, sum(f.st_size for f in files), created, used)
