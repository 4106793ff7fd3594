"""The share of cores, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dtg_restore import Restorer
from dtg_restore.engine.cores import core_share, use_threads
from dtg_restore.engine.errors import ConfigError


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/farm/job:7\n",
                "sys/fs/cgroup/farm/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/farm/job:7/cpu.max": "800000 100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/job\n3:memory:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_the_smallest_of_all_limits_counts(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert core_share(write(tmp_path, files)) == cores


def test_threads_are_lowered_to_the_share_and_raised_by_name_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("dtg_restore.engine.cores.core_share", lambda: 2)
    try:
        torch.set_num_threads(1)
        use_threads(None)
        assert torch.get_num_threads() == 1
        torch.set_num_threads(5)
        use_threads(None)
        assert torch.get_num_threads() == 2
        Restorer.load(backbone="none", threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_number_of_threads_is_a_whole_one(threads: float) -> None:
    with pytest.raises(ConfigError, match="threads"):
        Restorer.load(backbone="none", threads=threads)
