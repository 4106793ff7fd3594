from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from dtg_restore.engine import report
from dtg_restore.engine.report import Clock, DeviceLaps, laps_of, merged


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


# -- the timeline ---------------------------------------------------------------------------------


def test_when_stages_ran(ticks: Ticks) -> None:
    clock = Clock()
    ticks.now += 1
    with clock.stage("decode"):
        ticks.now += 2
        with clock.stage("refine"):  # as another thread would
            ticks.now += 3
    ticks.now += 2
    assert clock.timeline() == [
        {"stage": "decode", "start": 1.0, "end": 6.0},
        {"stage": "refine", "start": 3.0, "end": 6.0},
    ]
    assert clock.overlap() == {"share": 3 / 8, "busy": {"decode": 5 / 8, "refine": 3 / 8}}


def test_three_at_once_are_counted_once(ticks: Ticks) -> None:
    clock = Clock()
    with clock.stage("decode"), clock.stage("refine"), clock.stage("encode"):
        ticks.now += 4
    assert clock.overlap()["share"] == 1


def test_parts_are_no_stages(ticks: Ticks) -> None:
    """They neither overlap with their stage nor count twice in the seconds."""
    clock = Clock()
    with clock.stage("refine"):
        ticks.now += 4
        clock.add_parts("refine", ("encode", "sample"), [100.0, 101.0, 104.0])
    assert clock.describe() == {"refine": 4.0, "other": 0.0, "total": 4.0}
    assert clock.overlap() == {
        "share": 0.0,
        "busy": {"refine": 1.0, "refine/encode": 0.25, "refine/sample": 0.75},
    }
    assert {"stage": "refine/sample", "start": 1.0, "end": 4.0} in clock.timeline()


def test_the_timeline_is_bounded(ticks: Ticks) -> None:
    """Frames come in chunks of 10: what is left apart are the chunks, and the shares are exact."""
    clock = Clock()
    for _ in range(30):
        for _ in range(10):
            with clock.stage("upscale"):
                ticks.now += 1
            ticks.now += 0.25
        ticks.now += 50
    rows = clock.timeline()
    assert 30 <= len(rows) <= report.MAX_INTERVALS
    assert all(a["end"] <= b["start"] for a, b in zip(rows, rows[1:], strict=False))
    assert all(row["end"] - row["start"] < 13 for row in rows)  # no gap between chunks was closed
    assert clock.overlap()["busy"] == {"upscale": round(300 / (ticks.now - 100), 4)}


def test_the_smallest_gaps_are_closed() -> None:
    assert merged([(0, 1), (1.5, 2), (9, 10), (10, 11), (30, 31)]) == [(0, 11), (30, 31)]
    assert merged([(0, 1), (2, 3), (4, 5)]) == [(0, 5)]


class Late:
    """Like an event of a GPU: recorded at once, passed after what was launched before it."""

    queue = 0.0  # milliseconds of work that was launched
    waits = 0

    def record(self, stream: str) -> None:
        assert stream == "the stream"
        self.at = Late.queue

    def synchronize(self) -> None:
        Late.waits += 1

    def elapsed_time(self, end: Late) -> float:
        return end.at - self.at


def test_laps_of_a_device_are_those_of_its_work(ticks: Ticks) -> None:
    """The host marks all of them at once; they lie before the moment when the last is passed."""
    laps = DeviceLaps(Late, "the stream")
    for milliseconds in (0.0, 1500.0, 500.0):
        Late.queue += milliseconds
        laps.mark()
    assert Late.waits == 0
    ticks.now += 3
    assert laps.times() == pytest.approx([101.0, 102.5, 103.0])
    assert Late.waits == 1


def test_laps_of_the_host(ticks: Ticks) -> None:
    laps = laps_of(torch.device("cpu"))
    for _ in range(2):
        laps.mark()
        ticks.now += 2
    assert laps.times() == [100.0, 102.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_laps_of_a_gpu() -> None:
    device = torch.device("cuda:0")
    laps, a = laps_of(device), torch.randn(2048, 2048, device=device)
    for _ in range(3):
        laps.mark()
        for _ in range(20):
            a @ a
    laps.mark()
    times = laps.times()
    assert times == sorted(times) and len(times) == 4


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(range(256)) * 8192  # two blocks
    path.write_bytes(content)
    assert report.sha256(path) == hashlib.sha256(content).hexdigest()
    assert report.sha256(tmp_path) is None and report.sha256(tmp_path / "absent") is None
