"""A bundle out of the cache, where the user wants it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..engine.bundle.damage import damage
from ..engine.bundle.manifest import MANIFEST, Manifest, read_manifest
from ..engine.errors import EngineError, InputError
from .folder import writing_folder


def check(target: Path, key: str, overwrite: bool) -> None:
    """Find what keeps `target` from being written before anything is built.

    InputError where there is something else than the bundle `key`: another bundle unless
    `overwrite` is on, or what is no bundle, which is never deleted.
    """
    if not target.parent.is_dir():
        raise InputError(f"cannot write {target}: there is no folder {target.parent}")
    if not target.exists() or _is_empty(target) or _holds(target, key):
        return
    if not overwrite:
        raise InputError(f"{target} exists already, and overwrite is off")
    try:
        manifest = read_manifest(target)
    except EngineError as error:
        raise InputError(f"{target} is not replaced: {error}") from error
    known = {MANIFEST, *manifest.files}
    for path in target.rglob("*"):
        if not path.is_dir() and path.relative_to(target).as_posix() not in known:
            raise InputError(f"{target} is not replaced: {path.name} in it is not of the bundle")


def copy(source: Path, manifest: Manifest, target: Path) -> None:
    """Copy a bundle, unless it is at `target` already and whole.  InputError as for any write."""
    if _holds(target, manifest.key) and read_manifest(target) == manifest:
        return
    with writing_folder(target, replace=True) as partial:
        for name in manifest.files:
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, place)
        shutil.copyfile(source / MANIFEST, partial / MANIFEST)


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not any(target.iterdir())


def _holds(target: Path, key: str) -> bool:
    try:
        manifest = read_manifest(target)
    except EngineError:
        return False
    return manifest.key == key and not damage(target, manifest)
