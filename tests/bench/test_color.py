"""Drifts of colour by hand."""

from __future__ import annotations

import pytest
import torch

from dtg_restore.bench.color import drifts
from dtg_restore.engine.tiling import ChunkGrid


def test_drifts_by_hand() -> None:
    source = torch.rand(14, 3, 4, 4)
    frames = source.clone()
    frames[8:, 1] += 2 / 255  # from the second chunk of 8 frames on: green by two codes
    frames[:8, 1] += 1 / 255
    shown = drifts(frames, source, ChunkGrid(8, 2))
    assert shown["drift"] == pytest.approx((8 * 1 + 6 * 2) / 14, abs=1e-4)
    assert shown["largest_drift"] == pytest.approx(2, abs=1e-4)
    assert shown["join_change"] == pytest.approx(1 / 3 / 3, abs=1e-4)  # one of three steps
    assert shown["other_change"] == pytest.approx(0, abs=1e-4)


def test_the_channel_that_drifts_most_counts_whatever_its_sign() -> None:
    source = torch.full((9, 3, 2, 2), 0.5)
    shift = torch.tensor([1.0, -3.0, 2.0]) / 255
    shown = drifts(source + shift[:, None, None], source, ChunkGrid(8, 0))
    assert shown["drift"] == pytest.approx(3, abs=1e-3)
