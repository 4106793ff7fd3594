"""Opens components of bundles, by the name of a runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..errors import ConfigError
from . import COMPILED, EXECUTORS, RUNTIMES, aot, ort, tensorrt
from .base import Component, Engine


def executor(runtime: str, made_for: str) -> str:
    """What executes files made for `made_for` where `runtime` is set: "auto" or by name.

    ConfigError where it cannot.
    """
    able = EXECUTORS[made_for]
    if runtime == "auto":
        return able[0]
    if runtime not in able:
        raise ConfigError(
            f"runtime is {runtime!r}: what was made for {made_for} runs with {', '.join(able)}"
        )
    return runtime


def reasons(runtime: str) -> list[str]:
    """Why this installation cannot execute bundles by `runtime`; none where it can."""
    checks: dict[str, Callable[[], list[str]]] = {
        "aot": aot.reasons,
        "tensorrt": tensorrt.reasons,
        "ort-tensorrt": partial(ort.reasons, "tensorrt"),
    }
    return checks.get(runtime, partial(ort.reasons, "cpu"))()


def open_engine(runtime: str, folder: Path, component: Component, device: torch.device) -> Engine:
    """The component of the bundle in `folder`, executed by `runtime`.

    ConfigError where it executes no bundles; EngineError where its library is not installed, or
    cannot open the file.
    """
    entry = RUNTIMES.get(runtime)
    if runtime not in COMPILED:
        raise ConfigError(f"runtime is {runtime!r}: it executes no compiled models")
    engine: Engine = entry.build(folder / component.files[0], component, device)
    return engine
