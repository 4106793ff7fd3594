"""Growth of time and memory with the length of a clip, as a verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from dtg_restore.bench import throughput
from dtg_restore.bench.throughput import growth, measure


def series(times: Sequence[float], peaks: Sequence[int]) -> list[dict[str, Any]]:
    frames = (16, 28, 52, 100)
    return [
        {"frames": n, "total_s": s, "peak_memory_bytes": {"host": p}}
        for n, s, p in zip(frames, times, peaks, strict=True)
    ]


def test_linear_time_and_constant_memory() -> None:
    found = growth(series([1 + 0.5 * n for n in (16, 28, 52, 100)], [90, 100, 100, 104]))
    assert found["s_per_frame"] == 0.5 and found["s_at_zero_frames"] == 1
    assert found["late_over_early_cost"] == 1 and found["largest_residual_over_longest"] == 0
    assert found["time_is_linear"] and found["memory_is_constant"]
    assert found["memory_ratio"] == 1.04


def test_growth_is_seen() -> None:
    found = growth(series([n * n / 100 for n in (16, 28, 52, 100)], [90, 100, 120, 160]))
    assert not found["time_is_linear"] and not found["memory_is_constant"]


def test_the_device_is_what_counts_where_there_is_one() -> None:
    rows = series([1, 2, 4, 8], [1, 2, 3, 4])
    for row in rows:
        row["peak_memory_bytes"]["device"] = 7
    assert growth(rows)["memory_ratio"] == 1


def test_a_process_of_its_own_knows_nothing_of_ours() -> None:
    size = 2**30
    ballast = bytearray(size)  # held by this process alone
    ballast[:: os.sysconf("SC_PAGESIZE")] = b"1" * len(ballast[:: os.sysconf("SC_PAGESIZE")])
    case = {"frames": 1, "height": 16, "width": 16, "tile": (16, 16)}
    assert 2**26 < throughput.alone(case, {"backbone": "none"})["host"] < size


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "alone", lambda case, settings: {"host": 5})
    cases = [{"frames": n, "height": 16, "width": 16, "tile": (16, 16)} for n in (4, 20)]
    short, long = measure(cases, 1, sr="none", steps=1)
    assert (short["chunks"], short["s_per_later_chunk"]) == (1, None)
    assert long["chunks"] == 2 and long["s_per_later_chunk"] > 0
    assert long["peak_memory_bytes"] == {"host": 5}
