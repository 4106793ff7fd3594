"""Progress counts work, so that equal shares take about equal times."""

from __future__ import annotations

import pytest

from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.plan import make_plan
from dtg_restore.engine.progress import Meter, count_frames
from dtg_restore.engine.sr import SR


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
    meter = Meter(plan, SR.get("mini-x2").facts, (64, 64))
    meter.expect(0, None, 14)  # chunks 0-7 and 6-13
    shares = []
    for frames in (6, 8):
        shares += [meter.step(i + 1, 4).fraction for i in range(4)]
        shares += [meter.frame().fraction for _ in range(frames)]
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False))
    assert shares[-1] == pytest.approx(1)
    refinement = shares[3]
    assert [s / refinement for s in shares[:3]] == pytest.approx([1 / 4, 1 / 2, 3 / 4])


def test_unknown_length_has_no_share() -> None:
    meter = Meter(None, SR.get("mini-x2").facts, (64, 64))
    meter.expect(0, None, None)
    progress = meter.frame()
    assert (progress.frames, progress.total, progress.fraction) == (1, None, None)


def test_a_clip_longer_than_it_claims() -> None:
    meter = Meter(None, SR.get("mini-x2").facts, (64, 64))
    meter.expect(0, None, 2)
    shares = [meter.frame().fraction for _ in range(3)]
    assert shares == [0.5, 1, 1]
