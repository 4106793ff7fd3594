"""What shows of the joins of chunks, on a real clip and the embedded model, and that it would show.

A start at t = 0.4 gives the model more to invent than its default does, so chunks differ more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.bench.joins import handovers, seams
from dtg_restore.bench.material import read
from dtg_restore.engine import pipeline
from dtg_restore.engine.blend import cross_fade
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.tiling import ChunkGrid

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo.mp4"


@pytest.fixture(scope="module")
def source() -> Tensor:
    return read(DEMO, 40)[..., 40:88, 60:108].contiguous()


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    settings: dict[str, Any] = {"t_start": 0.4, "steps": 1, "guidance": "none", "tile": (0, 0)}
    return Restorer.load(backbone="mini", sr="none", shots="none", device="cpu", **settings)


def figures(restorer: Restorer, source: Tensor) -> dict[str, float]:
    plan = restorer.plan(*source.shape[-2:])
    assert plan is not None
    return seams(torch.as_tensor(restorer.restore(source)), source, plan.grid)


def test_no_join_shows(restorer: Restorer, source: Tensor) -> None:
    assert handovers(ChunkGrid(16, 4), 40) == [slice(11, 16), slice(23, 28)]  # there are joins
    shown = figures(restorer, source)
    assert 0.9 < shown["step"] < 1.1
    assert shown["largest_step"] < 1.25
    assert shown["pulse"] < 0.5  # 8-bit code values


# -- each figure tells what it is for --------------------------------------------------------------


def test_chunks_without_overlap_show(restorer: Restorer, source: Tensor) -> None:
    assert figures(restorer.configure(overlap=0), source)["step"] > 1.3


def test_a_fade_the_wrong_way_round_shows(
    restorer: Restorer, source: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "cross_fade", lambda before, after: cross_fade(after, before))
    assert figures(restorer, source)["largest_step"] > 1.3


@pytest.mark.parametrize("method", ["none", "wavelet", "adain"])
def test_chunks_of_unlike_brightness_show(
    restorer: Restorer, source: Tensor, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Three code values; matching the colours takes them away again."""
    decode = type(restorer.codec).decode
    counted = iter(range(100))

    def shifted(self: Any, z: Tensor) -> Any:
        sign = (-1) ** next(counted)
        return (part + 1.5 / 255 * sign for part in decode(self, z))

    monkeypatch.setattr(type(restorer.codec), "decode", shifted)
    pulse = figures(restorer.configure(color_match=method), source)["pulse"]
    assert pulse > 2 if method == "none" else pulse < 0.5
