"""Hashes of models and of the engine itself, which the key of a bundle is made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ..cache import cache_folder
from ..errors import EngineError
from ..report import sha256
from .manifest import FileFacts

PACKAGE = Path(__file__).parents[2]
SOURCES = ("engine", "kernels", "export")  # what a bundle's contents depend on
MODEL_FILES = {
    *(".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".model"),
    *(".json", ".yaml", ".yml", ".txt", ".jinja"),
}
FRESH = 2.0  # seconds in which a file can be written twice at what its system calls one time


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's contents, read whole; EngineError where it cannot be read."""
    try:
        digest = sha256(path)
    except OSError as error:
        raise EngineError(f"{os.fspath(path)} cannot be read: {error}") from error
    if digest is None:
        raise EngineError(f"{os.fspath(path)} is no file")
    return digest


def file_facts(path: Path) -> FileFacts:
    """What a manifest has of a file; EngineError as `file_sha256`."""
    return FileFacts(file_sha256(path), path.stat().st_size)


def source_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a model: that of a file, or over the names and contents of a folder's files of
    weights and settings.

    A file that has not changed since its hash was taken, by its size, times and inode, is not read
    again: its hash is kept in the user's cache.  EngineError where there is nothing to hash.
    """
    path = Path(path)
    if not path.is_dir():
        return _remembered_sha256(path)
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.suffix.lower() in MODEL_FILES and file.is_file() and not _is_hidden(file, path)
    )
    if not files:
        raise EngineError(f"{path} holds no weights and no settings of a model")
    return _digest((name, _remembered_sha256(file)) for name, file in files)


def engine_sources_sha256() -> str:
    """SHA-256 over names and contents of this package's own sources."""
    files = sorted(file for part in SOURCES for file in (PACKAGE / part).rglob("*.py"))
    return _digest((f.relative_to(PACKAGE).as_posix(), file_sha256(f)) for f in files)


def _digest(entries: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, value in entries:
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _remembered_sha256(path: Path) -> str:
    try:
        path = path.resolve(strict=True)
        facts = path.stat()
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    name = _digest([(str(path), _identity(facts))])[:32]
    memory = cache_folder("hashes") / name
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = memory.read_text()
        if re.fullmatch(r"[0-9a-f]{64}", known):
            return known
    is_settled = time.time() - max(facts.st_mtime, facts.st_ctime) > FRESH
    digest = file_sha256(path)
    if is_settled and _identity(path.stat()) == _identity(facts):
        _remember(memory, digest)
    return digest


def _identity(facts: os.stat_result) -> str:
    # The time of the last change cannot be set back, as that of the contents can.
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def _remember(path: Path, digest: str) -> None:
    with contextlib.suppress(OSError):  # what cannot be kept is computed again
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w") as file:
            file.write(digest)
        os.replace(temporary, path)
