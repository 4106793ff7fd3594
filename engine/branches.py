"""Whether both branches are evaluated in one call or one after the other.

"auto" is "batched" unless the table in the user's cache says otherwise.  The table has one small
file for each model, shape, precision and machine.  Where it is missing, both ways are timed on the
run's own first tiles and the result is stored under its final name at once; the first to store it
wins, and all others read what it stored.  What cannot be stored is not measured.  So all runs that
share a cache agree, whoever measured first.  That matters because the two ways differ in the last
bits: by about 1e-5 in fp32 and more in low precision.  Where runs on several machines, or with
other settings of the machine, must agree to the last bit, name the way or share `$DTG_CACHE`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .backbones.base import BackboneFacts
from .cache import cache_folder
from .config import RestoreConfig

logger = logging.getLogger("dtg_restore")

BATCHED, SEQUENTIAL = "batched", "sequential"
MARGIN = 0.9  # sequential must take less than this share of the time: near ties must not be luck
ROUNDS, ENOUGH = (2, 5), 0.1  # of a measurement: fewest and most, and seconds after which it ends
LONG = 0.5  # seconds, of a call whose first time can be trusted

Calls = Mapping[str, Callable[[], object]]
Key = dict[str, Any]


class BranchPlan:
    """The way that one run takes, settled at the first call that has both branches.

    Parameters
    ----------
    asked : "auto", "batched" or "sequential".
    model : plain data that, with the shape and the machine, the speed of a call depends on.
    device : where the calls run.
    """

    def __init__(self, asked: str, model: Key, device: torch.device):
        self._asked, self._model, self._device = asked, model, device
        self._row: dict[str, Any] | None = None

    def way(self, shape: tuple[int, ...], calls: Calls) -> str:
        """ "batched" or "sequential"; `calls` has both, for inputs of `shape`."""
        if self._row is None:
            self._row = (
                {"way": self._asked} if self._asked != "auto" else self._look_up(shape, calls)
            )
        return self._row["way"]

    def describe(self) -> dict[str, Any]:
        """Plain data for the report; `way` is None where no call had both branches."""
        return {"asked": self._asked, "way": None} | (self._row or {})

    def _look_up(self, shape: tuple[int, ...], calls: Calls) -> dict[str, Any]:
        key = self._model | machine_key(self._device) | {"shape": list(shape)}
        try:
            path = table_file(key)
            return _read(path) or _store(path, lambda: row_of(key, measure(calls, self._device)))
        except OSError as error:
            logger.debug("branches are batched: the table cannot be written: %s", error)
            return {"way": BATCHED}


def model_key(facts: BackboneFacts, config: RestoreConfig) -> Key:
    """What of the model decides which way is faster."""
    return {
        **{"name": facts.name, "width": facts.width, "depth": facts.depth},
        **{"ffn_width": facts.ffn_width, "context_tokens": facts.context_tokens},
        **{"dtype": config.dtype, "weights": config.weights, "offload": config.offload},
        "runtime": config.runtime if facts.runtime == "eager" else facts.runtime,
        "attention": config.attention,
    }


def machine_key(device: torch.device) -> Key:
    """What of the machine decides which way is faster."""
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "threads": None if is_cuda else torch.get_num_threads(),
        "torch": torch.__version__,
        "dtg-restore": __version__,
    }


def table_file(key: Key) -> Path:
    """Where the measurement for `key` is stored."""
    text = json.dumps(key, sort_keys=True)
    return cache_folder("branches") / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def measure(calls: Calls, device: torch.device) -> dict[str, float]:
    """Seconds of each call: the best of a few, in turns, after one of each to warm up.

    Calls that take long are made once; others more than twice, as a runtime may record the second
    one.  The sequential one is the first, so that what the first
    call of a process costs speaks for the default.
    """
    first = {name: _seconds(calls[name], device) for name in (SEQUENTIAL, BATCHED)}
    if min(first.values()) > LONG:
        return first
    best = dict.fromkeys(calls, math.inf)
    start = time.perf_counter()
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() - start > ENOUGH:
            break
        for name, call in calls.items():
            best[name] = min(best[name], _seconds(call, device))
    return best


def row_of(key: Key, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What is stored: the way, and why."""
    slower = seconds[SEQUENTIAL] >= MARGIN * seconds[BATCHED]
    return {"way": BATCHED if slower else SEQUENTIAL, "seconds": dict(seconds), "key": key}


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _read(path: Path) -> dict[str, Any] | None:
    """The row stored there; None where there is none, OSError where it is not one."""
    try:
        row = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{path} is damaged: {error}") from error
    if not isinstance(row, dict) or row.get("way") not in (BATCHED, SEQUENTIAL):
        raise OSError(f"{path} is damaged: it names no way")
    return row


def _store(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Store what `make` gives unless another run was faster; what is stored then.

    `make` is called once a file is open in the folder: an OSError comes before the measurement.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(make(), file, indent=1)
        with suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename it never replaces
    finally:
        os.unlink(temporary)
    row = _read(path)
    if row is None:
        raise FileNotFoundError(f"{path} vanished")
    return row
