"""The films of the benchmark have the cuts that they claim, and are counted rightly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.bench import shots
from dtg_restore.bench.shots import Cutter, Film, Score, joined


@pytest.fixture
def cutter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cutter:
    monkeypatch.setattr(shots, "HEIGHT", 18)
    monkeypatch.setattr(shots, "WIDTH", 32)
    cutter = Cutter(tmp_path, random.Random(0))  # a folder without clips
    for name, value in {"grey_1": 90, "grey_2": 90, "white": 200, "dark": 20}.items():
        cutter._clips[name] = torch.full((90, 3, 18, 32), value, dtype=torch.uint8)
    return cutter


def test_neighbours_are_of_different_scenes(cutter: Cutter) -> None:
    for _ in range(20):
        frames, cuts = cutter.sequence(4, 3, 9)
        assert len(cuts) == 3
        means = frames.mean((1, 2, 3))
        changes = [i for i in range(1, len(frames)) if means[i] != means[i - 1]]
        assert changes == cuts


def test_kinds_without_cuts_have_none(cutter: Cutter) -> None:
    assert cutter.fade().cuts == cutter.dissolve().cuts == []
    film = cutter.flashes(cutter.part(40, 80))
    assert film.cuts == [] and len(film.frames) >= 40
    frames, cuts = cutter.punched_in(cutter.part(30, 60))[1:]
    assert cuts == [len(frames) // 2] and frames.shape[1:] == (3, 18, 32)


def test_scores() -> None:
    film, score = joined("hard", [torch.zeros(n, 3, 1, 1) for n in (3, 4, 5)]), Score()
    assert film.cuts == [3, 7]

    def find(frames: Tensor) -> list[int]:
        return [3, 8]

    score.add(film, find)
    score.add(Film("fade", film.frames, []), find)
    row = score.row("mine")
    assert row["kinds"] == {
        "hard": {"found": 1, "false": 1, "missed": 1},
        "fade": {"found": 0, "false": 2, "missed": 0},
    }
    assert (row["precision"], row["recall"], row["f1"]) == (0.25, 0.5, round(2 / 6, 4))
