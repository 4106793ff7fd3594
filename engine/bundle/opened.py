"""A bundle on this machine, proved to be whole and to fit; its engines open as they are used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch

from ..errors import EngineError
from ..runtimes.base import Engine
from ..runtimes.engines import executor, open_engine
from .damage import damage
from .machine import misfits
from .manifest import MANIFEST, Manifest, read_manifest

Signature = tuple[tuple[int, int] | None, ...]  # size and time of change of every file
_proved: dict[Path, Signature] = {}
_proving = Lock()


class Engines(Mapping[str, Engine]):
    """The engines of a bundle by the names of their components, each opened when it is first used.

    EngineError for a component that the bundle has not.
    """

    def __init__(self, runtime: str, folder: Path, manifest: Manifest, device: torch.device):
        self._runtime, self._folder, self._manifest = runtime, folder, manifest
        self._device = device
        self._opened: dict[str, Engine] = {}
        self._opening = Lock()

    def __getitem__(self, name: str) -> Engine:
        component = self._manifest.components.get(name)
        if component is None:
            raise EngineError(f"{self._folder} has no component {name}: export it again")
        with self._opening:
            if name not in self._opened:
                self._opened[name] = open_engine(
                    self._runtime, self._folder, component, self._device
                )
            return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest.components)

    def __len__(self) -> int:
        return len(self._manifest.components)


class OpenedBundle(NamedTuple):
    """Make one with `open_bundle`; `runtime` executes its engines."""

    folder: Path
    manifest: Manifest
    runtime: str
    device: torch.device
    engines: Engines


def open_bundle(
    folder: str | os.PathLike[str], device: torch.device, runtime: str = "auto"
) -> OpenedBundle:
    """Open the bundle in `folder` for `device`; `runtime` is one that can execute it.

    Every file is compared with its sum, once a process unless it has changed since.

    Raises
    ------
    ConfigError
        Where `runtime` cannot execute what the bundle holds.
    EngineError
        Where there is no manifest, a file is missing, cut short or changed, or the machine or the
        device is not what the bundle was compiled for; it names the file or the field.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    runtime = executor(runtime, manifest.runtime)
    if device.type != manifest.device:
        raise EngineError(
            f"{folder} was compiled for device {manifest.device}, and this one is {device.type}"
        )
    if problems := misfits(manifest.needs):
        raise EngineError(f"{folder} does not fit this machine: {'; '.join(problems)}")
    _prove(folder.resolve(), manifest)
    engines = Engines(runtime, folder, manifest, device)
    return OpenedBundle(folder, manifest, runtime, device, engines)


def _prove(folder: Path, manifest: Manifest) -> None:
    for name, component in manifest.components.items():
        if unlisted := set(component.files) - manifest.files.keys():
            raise EngineError(f"{folder}: {name} needs {unlisted.pop()}, of which there is no sum")
    with _proving:
        signature = _signature(folder, [MANIFEST, *manifest.files])
        if _proved.get(folder) == signature:
            return
        if found := damage(folder, manifest):
            raise EngineError(f"{folder} is damaged, export it again: {'; '.join(found)}")
        _proved[folder] = signature


def _signature(folder: Path, names: list[str]) -> Signature:
    return tuple(_facts(folder / name) for name in names)


def _facts(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
