"""The share of a machine's cores that this process was given.

PyTorch starts as many threads as the process may use cores, but knows nothing of the quota of a
container: with 4 of 64 cores it would start 64 threads, each of which is stopped for most of every
period.  See "CPU Interface Files" in the kernel's documentation of control groups.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path("/")


def core_share(root: Path = ROOT) -> int:
    """Cores by affinity and by the quotas of all control groups that hold the process, 1 or more.

    `root` is the file system that they are read from.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # neither macOS nor Windows has it
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def use_threads(threads: int | None) -> None:
    """Compute on a CPU with so many threads; None: no more than `core_share`."""
    torch.set_num_threads(threads or min(torch.get_num_threads(), core_share()))


def _quotas(root: Path) -> Iterator[float]:
    """In cores, of every group from that of the process up; those without a limit are left out."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, name = line.split(":", 2)
        base = root / "sys/fs/cgroup"
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        if number != "0":
            base /= "cpu"
        # In a container the name is often that outside of it, and the group is the base itself.
        for group in {base, *_up_to(base / name.lstrip("/"), base)}:
            yield from _quota(group)


def _up_to(group: Path, base: Path) -> Iterator[Path]:
    while group != base and base in group.parents:
        yield group
        group = group.parent


def _quota(group: Path) -> Iterator[float]:
    quota, _, period = _read(group / "cpu.max").strip().partition(" ")  # version 2
    if not quota:
        quota = _read(group / "cpu.cfs_quota_us").strip()
        period = _read(group / "cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit() and int(period):
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
