"""Where a number comes from: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..kernels import native

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, Any]:
    """Plain data to be stored with every measurement."""
    gpu = torch.cuda.is_available()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "dtg_restore": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "cuda": torch.version.cuda,
        "native": native.describe(),
    }


def _commit() -> str | None:
    """The commit of the checkout, "+" where files differ from it; None outside one."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
