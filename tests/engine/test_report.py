from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dtg_restore.engine import report
from dtg_restore.engine.report import Clock


class Ticks:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    ticks = Ticks()
    monkeypatch.setattr(report.time, "perf_counter", ticks)
    return ticks


def test_clock_sums_by_stage(ticks: Ticks) -> None:
    clock = Clock()
    for seconds in (1.0, 2.0):
        with clock.stage("refine"):
            ticks.now += seconds
        ticks.now += 0.25  # nobody's
    with pytest.raises(KeyError), clock.stage("encode"):
        ticks.now += 4
        raise KeyError  # time that ended in an error counts as well
    assert clock.describe() == {"refine": 3.0, "encode": 4.0, "other": 0.5, "total": 7.5}


def test_timed_counts_the_making_of_items_alone(ticks: Ticks) -> None:
    def items():
        for n in range(3):
            ticks.now += 1
            yield n
        ticks.now += 8  # finding the end

    clock, got = Clock(), []
    for n in clock.timed("decode", items()):
        got.append(n)
        ticks.now += 10  # the consumer's
    assert got == [0, 1, 2] and clock.seconds == {"decode": 11.0}


def test_call_passes_arguments_and_result() -> None:
    assert Clock().call("refine", divmod, 7, 2) == (3, 1)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(range(256)) * 8192  # two blocks
    path.write_bytes(content)
    assert report.sha256(path) == hashlib.sha256(content).hexdigest()
    assert report.sha256(tmp_path) is None and report.sha256(tmp_path / "absent") is None
