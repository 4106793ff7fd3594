"""Where a number comes from: machine, versions, commit."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..engine.devices import resolve_device
from ..engine.report import machine, versions
from ..kernels import native

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, Any]:
    """Plain data to be stored with every measurement."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(resolve_device("auto")),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions(),
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
