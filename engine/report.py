"""What a run did: time by stage, evaluations, memory, settings, versions and hashes."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from .. import __version__
from .checkpoint import weights_file

T = TypeVar("T")


class Clock:
    """Seconds spent in every stage; stages do not nest, but may run at once in other threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def call(self, name: str, function: Callable[..., T], *args: Any) -> T:
        with self.stage(name):
            return function(*args)

    def timed(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, the time to produce each counted for `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def describe(self) -> dict[str, float]:
        """Seconds by stage and in all, with what no stage accounts for as "other".

        Stages that run at once may come to more than the total.
        """
        total = time.perf_counter() - self._start
        stages = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        return stages | {
            "other": round(max(0.0, total - sum(self.seconds.values())), 4),
            "total": round(total, 4),
        }


def peak_memory() -> dict[str, int]:
    """The most memory this process has held so far, in bytes, by device."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["device"] = torch.cuda.max_memory_allocated()
    return peak


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware a run used, by name."""
    facts: dict[str, Any] = {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"dtg-restore": __version__, "python": platform.python_version()}
    for name in ("torch", "av", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def weights(name: str) -> dict[str, str | None] | None:
    """Where the weights of a model lie, and their hash; None for "none"."""
    if name == "none":
        return None
    path = weights_file(name)
    return {"path": str(path), "sha256": sha256(path)}


def sha256(path: str | os.PathLike[str]) -> str | None:
    """The hash of a file; None for what is no single file."""
    path = Path(path)
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
