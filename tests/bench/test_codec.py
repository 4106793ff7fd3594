"""The measurement of the codec: what it counts, and that it compares like with like."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from dtg_restore.bench.codec import line, measure
from dtg_restore.bench.live_bytes import LiveBytes


def test_peak_counts_what_lives_at_once() -> None:
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        a.add_(1)
        del b
        torch.ones(500)
        a = a * 2
    assert live.peak == 8000 and live.live == 4000
    assert len(a) == 1000


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_both_sides_do_the_same(version: str) -> None:
    pytest.importorskip("diffusers")
    rows = list(measure(version, Namespace(size=(32, 32), frames=5, rounds=1, base_dim=16)))
    assert [row["direction"] for row in rows] == ["encode", "decode", "decode in tiles"]
    for row in rows[:2]:
        assert row["max_difference_over_scale"] < 1e-4
        assert row["flop"] > 1e8 and row["ours"]["peak_bytes"] > 1e5
    assert 0 < rows[2]["rms_difference"] < rows[2]["deviation"] * 2
    assert all(row["direction"] in line(row) for row in rows)
