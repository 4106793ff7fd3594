"""Measures of joins by hand, and that the bench mixes as the engine does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.bench.joins import (
    FADES,
    chunks,
    fitted,
    handovers,
    hard,
    mixed,
    raised_cosine,
    score_join,
    seams,
    whole_joins,
)
from dtg_restore.bench.metrics import luma, mean_steps, sharpness
from dtg_restore.engine.blend import fade
from dtg_restore.engine.pipeline import join
from dtg_restore.engine.tiling import ChunkGrid
from dtg_restore.engine.types import Chunk

GRID = ChunkGrid(8, 2)


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def parts(frames: Tensor, grid: ChunkGrid = GRID, shift: float = 0.0) -> list[tuple[Chunk, Tensor]]:
    """Every other chunk is brighter by `shift`."""
    return [(chunk, part + shift * (chunk.index % 2)) for chunk, part in chunks(frames, grid)]


def test_handovers_by_hand() -> None:
    assert handovers(ChunkGrid(8, 2), 20) == [slice(5, 8), slice(11, 14)]
    assert handovers(ChunkGrid(8, 0), 17) == [slice(7, 8), slice(15, 16)]
    assert handovers(ChunkGrid(8, 2), 8) == []


@pytest.mark.parametrize("grid", [ChunkGrid(8, 2), ChunkGrid(8, 4), ChunkGrid(8, 0)])
@pytest.mark.parametrize("count", [9, 20, 21])
def test_frames_are_mixed_as_the_engine_mixes_them(grid: ChunkGrid, count: int) -> None:
    made = [(c, noise(len(p), c.index)) for c, p in chunks(noise(count), grid)]
    want = torch.stack([frame for _, frame in join(made, grid.stride)])
    assert torch.equal(mixed(made, grid.overlap, fade(grid.overlap)), want)


def test_seams_of_the_source_itself() -> None:
    shown = seams(noise(20), noise(20), GRID)
    assert shown == pytest.approx({"step": 1, "largest_step": 1, "pulse": 0}, abs=1e-6)


def test_seams_see_the_brightness_of_chunks() -> None:
    still = noise(1).expand(20, -1, -1, -1)
    moving = 0.5 * still + 0.02 * noise(20)
    shown = seams(mixed(parts(moving, shift=0.04), 2, fade(2)), moving, GRID)
    # Of frames 0 .. 6, 7 .. 12 and 13 .. 19 one at each join has some of the other chunk.
    levels = [17 / 81 / 7, (4 + 2 * 64 / 81) / 6, 17 / 81 / 7]
    want = 0.04 * 255 * (levels[1] - levels[0])
    assert shown["pulse"] == pytest.approx(want, rel=1e-3)
    assert shown["step"] > 1.5 and shown["largest_step"] > shown["step"]


def test_scores_of_one_join() -> None:
    clean = noise(6)
    agreed = score_join(clean[:5], clean[1:], fade(4), clean)
    assert agreed["own_step"] == pytest.approx(1, abs=1e-5)
    assert agreed["sharpness"] == pytest.approx(1, abs=1e-5)
    assert agreed["temporal_error"] == pytest.approx(0, abs=1e-4) and agreed["psnr"] > 100
    other = noise(6, seed=1)
    ghosts = score_join(clean[:5], other[1:], fade(4), clean)
    cut_off = score_join(clean[:5], other[1:], hard(4), clean)
    assert ghosts["sharpness"] < 0.95 < cut_off["sharpness"] == pytest.approx(1, abs=1e-5)
    still, moved = noise(1).expand(5, -1, -1, -1), noise(5) * 0.01
    jump = score_join(still + moved, still + moved + 0.1, hard(4), noise(6))
    assert jump["largest_own_step"] > 5


def test_fitted_weights_are_those_the_truth_was_mixed_with() -> None:
    class Clip:
        name = "clip"

        def __init__(self, clean: Tensor):
            self.clean = clean

    made = [(c, noise(len(p), c.index)) for c, p in chunks(noise(14), GRID)]
    clip = Clip(mixed(made, 2, torch.tensor([0.3, 0.6])))
    assert fitted({"clip": made}, [clip], 2) == pytest.approx([0.3, 0.6], abs=2e-3)
    assert [shown for _, _, shown in whole_joins(made, 2)] == [slice(5, 9)]


def test_fades_are_symmetric_and_rise() -> None:
    for name, weights in FADES.items():
        if name != "hard cut":
            torch.testing.assert_close(weights(5), 1 - weights(5).flip(0))
        assert (weights(5).diff() >= 0).all()
    assert raised_cosine(1).tolist() == pytest.approx([0.5])


def test_measures_by_hand() -> None:
    frames = torch.zeros(3, 3, 4, 4)
    frames[1], frames[2, 1] = 0.5, 1.0
    y = luma(frames)
    assert y[:, 0, 0].tolist() == pytest.approx([0, 0.5, 0.7152])
    assert mean_steps(y).tolist() == pytest.approx([0.5, 0.2152])
    point = torch.zeros(2, 3, 3)
    point[0, 1, 1] = 1
    assert sharpness(point).tolist() == [1, 0]
