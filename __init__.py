"""dtg-restore: an inference engine for training-free video restoration with lookahead guidance.

The public names are loaded when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.config import DTG, RestoreConfig
    from .engine.errors import (
        ConfigError,
        DTGError,
        EngineError,
        InputError,
        Interrupted,
        OutOfMemory,
    )
    from .engine.heap import keep_freed_memory
    from .engine.restorer import Restorer

if sys.platform == "win32":  # locks, signals and the measure of memory are those of POSIX
    raise ImportError("dtg_restore runs on Linux and macOS; on Windows use it in WSL")

__version__ = "0.1.0"

_HOME = {
    "Restorer": ".engine.restorer",
    "DTG": ".engine.config",
    "RestoreConfig": ".engine.config",
    "DTGError": ".engine.errors",
    "ConfigError": ".engine.errors",
    "InputError": ".engine.errors",
    "EngineError": ".engine.errors",
    "OutOfMemory": ".engine.errors",
    "Interrupted": ".engine.errors",
    "keep_freed_memory": ".engine.heap",
}

__all__ = [
    "DTG",
    "ConfigError",
    "DTGError",
    "EngineError",
    "InputError",
    "Interrupted",
    "OutOfMemory",
    "RestoreConfig",
    "Restorer",
    "keep_freed_memory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
