"""The C library's treatment of freed memory, in a process of its own."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from dtg_restore.engine import heap

FAULTS = """
import resource, sys, torch
from dtg_restore.engine.heap import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
x = torch.zeros(12_000_000)  # more than the library keeps by itself
for _ in range(30):
    x = x + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    x = x + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    command = [sys.executable, "-c", FAULTS, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_not_cleared_again() -> None:
    assert faults("keep") < faults("plain") / 10


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert heap.keep_freed_memory() is False
