"""What a run did: time by stage, evaluations, memory, settings, versions and hashes."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median_high
from threading import Lock
from typing import Any, Protocol, TypeVar

import torch

from .. import __version__
from .bundle.manifest import is_bundle, read_manifest
from .checkpoint import weights_file

T = TypeVar("T")
Interval = tuple[float, float]  # start and end
MAX_INTERVALS = 64  # of a stage in the timeline


class Clock:
    """Seconds spent in every stage, and when; stages do not nest, but may run at once in other
    threads.

    Times are those of the host; a stage that computes on a GPU ends when its result is there.  The
    parts of a stage, "stage/part", appear in the timeline alone.  It is bounded: once a stage has
    more than `MAX_INTERVALS`, those with the smallest gaps between them become one.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._intervals: defaultdict[str, list[Interval]] = defaultdict(list)
        self._start = self._turned = time.perf_counter()
        self._lock, self._running, self._shared = Lock(), 0, 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._turn(1)
        try:
            yield
        finally:
            stop = self._turn(-1)
            self.seconds[name] += stop - start
            self._note(name, start, stop)

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

    def add_parts(self, stage: str, names: Sequence[str], times: Sequence[float]) -> None:
        """The parts of a stage that follow on each other, between `len(names) + 1` times."""
        for name, (start, stop) in zip(names, pairwise(times), strict=True):
            self._parts[f"{stage}/{name}"] += stop - start
            self._note(f"{stage}/{name}", start, stop)

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

    def timeline(self) -> list[dict[str, Any]]:
        """When every stage and part ran, {stage, start, end} in seconds since the start."""
        rows = [
            {"stage": name, "start": round(a - self._start, 4), "end": round(b - self._start, 4)}
            for name, intervals in list(self._intervals.items())
            for a, b in intervals
        ]
        return sorted(rows, key=lambda row: row["start"])

    def overlap(self) -> dict[str, Any]:
        """Shares of the time so far: in which two stages or more ran, and every one of them."""
        total = self._turn(0) - self._start
        busy = self.seconds | self._parts
        return {
            "share": round(self._shared / total, 4),
            "busy": {name: round(seconds / total, 4) for name, seconds in busy.items()},
        }

    def _turn(self, change: int) -> float:
        """The time at which so many stages more are running."""
        with self._lock:
            now = time.perf_counter()
            if self._running > 1:
                self._shared += now - self._turned
            self._running, self._turned = self._running + change, now
            return now

    def _note(self, name: str, start: float, stop: float) -> None:
        intervals = self._intervals[name]
        intervals.append((start, stop))
        if len(intervals) > MAX_INTERVALS:
            self._intervals[name] = merged(intervals)


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """At most half of the intervals, which are in order: the smallest gaps are closed."""
    gaps = [b[0] - a[1] for a, b in pairwise(intervals)]
    limit = median_high(gaps)
    result = [intervals[0]]
    for gap, (start, stop) in zip(gaps, intervals[1:], strict=True):
        if gap <= limit:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return result


class Laps(Protocol):
    """Moments in the work of a chunk."""

    def mark(self) -> None:
        """Nothing waits for it."""
        ...

    def times(self) -> list[float]:
        """Those of all marks, by the clock of the host; waits until the last one has passed."""
        ...


class HostLaps:
    def __init__(self) -> None:
        self._times: list[float] = []

    def mark(self) -> None:
        self._times.append(time.perf_counter())

    def times(self) -> list[float]:
        return self._times


class DeviceLaps:
    """A GPU gets to what it was given later than the host gave it: its own events are asked.

    `make` gives an event with the methods of `torch.cuda.Event`, to be recorded on `stream`.
    """

    def __init__(self, make: Callable[[], Any], stream: Any):
        self._make, self._stream, self._events = make, stream, list[Any]()

    def mark(self) -> None:
        event = self._make()
        event.record(self._stream)
        self._events.append(event)

    def times(self) -> list[float]:
        last = self._events[-1]
        last.synchronize()
        now = time.perf_counter()
        return [now - event.elapsed_time(last) / 1000 for event in self._events]


def laps_of(device: torch.device) -> Laps:
    """Of what this thread computes on `device`."""
    if device.type != "cuda":
        return HostLaps()
    stream = torch.cuda.current_stream(device)
    return DeviceLaps(partial(torch.cuda.Event, enable_timing=True), stream)


def peak_memory() -> dict[str, int]:
    """The most memory this process has held so far, in bytes, by device."""
    peak = {"host": _peak_of_host()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["device"] = torch.cuda.max_memory_allocated()
    return peak


def _peak_of_host() -> int:
    # What getrusage tells begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
    for name in ("torch", "av", "OpenImageIO", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def weights(name: str, part: str) -> dict[str, str | None] | None:
    """Where the weights of a model lie, and their hash; None for "none".

    Of a bundle, those that its `part` ("backbone" or "sr") was made of, and the bundle's key.
    """
    if name == "none":
        return None
    path = weights_file(name)
    if not path.exists():
        path = Path(name)  # of a folder
    if is_bundle(path):
        manifest = read_manifest(path)
        source = manifest.models[part]["source"]
        return {"path": str(path), "sha256": source["sha256"], "bundle": manifest.key}
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
