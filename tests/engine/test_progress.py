"""Progress counts work, so that equal shares take about equal times."""

from __future__ import annotations

import pytest

from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.plan import make_plan
from dtg_restore.engine.progress import Meter, count_frames
from dtg_restore.engine.sr import SR
from dtg_restore.engine.timeline import Timeline
from dtg_restore.engine.types import Chunk


@pytest.mark.parametrize(
    ("start", "stop", "num_frames", "want"),
    [
        (0, None, 9, 9),
        (3, 6, 9, 3),
        (3, 100, 9, 6),
        (20, 30, 9, 0),
        (2, 5, None, 3),
        (0, None, None, None),
    ],
)
def test_count_frames(
    start: int, stop: int | None, num_frames: int | None, want: int | None
) -> None:
    assert count_frames(start, stop, num_frames) == want


def test_shares_of_a_run_with_both_stages() -> None:
    plan = make_plan(RestoreConfig(chunk=8, overlap=2), 64, 64)
    meter = Meter(plan, SR.get("mini-x2").facts, (64, 64), Timeline(plan.grid))
    meter.expect(0, None, 14)  # chunks 0-7 and 6-13
    shares = []
    for chunk, frames in zip(Timeline(plan.grid).touching(0, 14, 14), (6, 8), strict=True):
        shares += [meter.step(i + 1, 4, chunk).fraction for i in range(4)]
        shares += [meter.frame().fraction for _ in range(frames)]
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False))
    assert shares[-1] == pytest.approx(1)
    refinement = shares[3]
    assert [s / refinement for s in shares[:3]] == pytest.approx([1 / 4, 1 / 2, 3 / 4])


def test_unknown_length_has_no_share() -> None:
    meter = Meter(None, SR.get("mini-x2").facts, (64, 64), Timeline(None))
    meter.expect(0, None, None)
    progress = meter.frame()
    assert (progress.frames, progress.total, progress.fraction) == (1, None, None)


def test_a_clip_longer_than_it_claims() -> None:
    meter = Meter(None, SR.get("mini-x2").facts, (64, 64), Timeline(None))
    meter.expect(0, None, 2)
    shares = [meter.frame().fraction for _ in range(3)]
    assert shares == [0.5, 1, 1]


def test_short_shots_count_by_their_frames() -> None:
    plan = make_plan(RestoreConfig(chunk=8, overlap=2), 64, 64)
    meter = Meter(plan, None, (64, 64), Timeline(plan.grid, (0, 8, 10)))
    meter.expect(0, None, 18)
    first, short, last = (meter.step(1, 1, Chunk(0, *ends)).fraction for ends in
                          ((0, 8), (8, 10), (10, 18)))  # fmt: skip
    assert short - first == pytest.approx(first / 4)
    assert last - short == pytest.approx(first)
    assert [meter.frame().fraction for _ in range(18)][-1] == pytest.approx(1)
