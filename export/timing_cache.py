"""What TensorRT has measured of kernels on this GPU, shared by all builds of this user.

A build times kernels for every layer; what it has seen before it takes from here.  There is one
file for each GPU and version of the library.  Builds that run at once add to each other's findings.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from ..engine.cache import cache_folder
from ..engine.errors import InputError
from ..engine.lock import locked
from ..engine.media.atomic import AtomicFile
from ..engine.runtimes.tensorrt import library

logger = logging.getLogger("dtg_restore")


def timing_file(device: torch.device) -> Path:
    gpu = torch.cuda.get_device_properties(device)
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu.name).strip("-").lower()
    name = f"{name}-sm{gpu.major}{gpu.minor}-{library().__version__}"
    return cache_folder("timing") / f"{name}.bin"


def attach(config: Any, device: torch.device) -> Any:
    """Have the build use what is known; it is a new cache where that is nothing, or of no use."""
    cache = config.create_timing_cache(_read(timing_file(device)))
    if cache is None or not config.set_timing_cache(cache, False):
        logger.debug("TensorRT cannot use what it has measured before")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def keep(config: Any, cache: Any, device: torch.device) -> None:
    """Add what the build has measured to the file, if that can be written."""
    path = timing_file(device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock"), lambda: None):
            others = config.create_timing_cache(_read(path))  # another build may have ended
            if others is not None:
                cache.combine(others, False)
            with AtomicFile(path, overwrite=True).filled() as unfinished:
                unfinished.write_bytes(cache.serialize())
    except (OSError, InputError) as error:
        logger.debug("TensorRT's measurements are not kept: %s", error)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
