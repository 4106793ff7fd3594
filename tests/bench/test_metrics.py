"""Measures against independent implementations and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dtg_restore.bench.metrics import block_step, psnr, temporal_error


def test_psnr_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    rng = np.random.default_rng(0)
    a = rng.random((4, 3, 9, 11), dtype=np.float32)
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1).astype(np.float32)
    want = metrics.peak_signal_noise_ratio(a, b, data_range=1)
    assert psnr(torch.from_numpy(b), torch.from_numpy(a)) == pytest.approx(want, abs=1e-3)


def test_psnr_clamps_the_result_alone() -> None:
    reference = torch.ones(1, 3, 4, 4)
    assert psnr(reference + 0.5, reference) == float("inf")


def test_temporal_error_sees_flicker_and_not_a_constant_offset() -> None:
    reference = torch.rand(6, 3, 8, 8)
    assert temporal_error(reference + 0.1, reference) == pytest.approx(0, abs=1e-4)
    flicker = 0.1 * (torch.arange(6) % 2)[:, None, None, None]
    assert temporal_error(reference + flicker, reference) == pytest.approx(25.5, rel=1e-3)


@pytest.mark.parametrize("shift", [0, 3, 7])
def test_block_step_finds_the_grid_wherever_it_lies(shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(3, 3, 64, 64, generator=generator)
    blocks = torch.rand(3, 3, 9, 9, generator=generator).repeat_interleave(8, -1)
    blocks = blocks.repeat_interleave(8, -2)[..., shift : shift + 64, shift : shift + 64]
    assert block_step(smooth) < 1.1
    assert block_step(0.2 * smooth + blocks) > 3
