"""The recipe of the super-resolution networks, on pictures made here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    """The modules `train_sr` and `sr_data`, imported the way the script imports them."""
    pytest.importorskip("PIL", reason="the recipe reads photos with Pillow")
    monkeypatch.syspath_prepend(str(RECIPES))
    import sr_data
    import train_sr

    yield train_sr, sr_data
    for name in ("train_sr", "sr_eval", "sr_data"):
        sys.modules.pop(name, None)


@pytest.fixture
def pictures(recipe):
    """Two frames of smooth waves, with all their LR variants at x2."""
    y, x = np.mgrid[0:96, 0:128] / 8
    waves = [np.sin(x + k) * np.cos(y - k) for k in range(3)]
    image = (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    clip = np.stack([image, np.roll(image, 2, axis=1)])
    _, sr_data = recipe
    return list(sr_data.make_pictures("waves", clip, 2, 1.0, slice(None), np.random.default_rng(0)))


def test_variants_are_aligned_with_the_picture(recipe, pictures):
    _, sr_data = recipe
    assert len(pictures) == 2
    for picture in pictures:
        assert len(picture.variants) == 1 + sr_data.NUM_DEGRADED
        clean, *degraded = (v.astype(float) for v in picture.variants)
        assert clean.shape == (48, 64, 3)
        for variant in degraded:
            assert 0 < np.abs(variant - clean).mean() < 12
            shifted = np.roll(variant, 1, axis=1)
            assert np.abs(variant - clean).mean() < np.abs(shifted - clean).mean()


def test_crops_are_aligned(recipe, pictures):
    _, sr_data = recipe
    sampler = sr_data.CropSampler(pictures, 2, 16, np.random.default_rng(1))
    lr, hr = sampler.batch(12)
    assert lr.shape == (12, 3, 16, 16)
    assert hr.shape == (12, 3, 32, 32)
    small = torch.nn.functional.avg_pool2d(hr, 2)
    assert (small - lr).abs().mean() < 0.05
    assert (small - lr.flip(-1)).abs().mean() > 0.1


def test_pictures_survive_the_cache(recipe, pictures, tmp_path):
    _, sr_data = recipe
    sr_data.write_pictures(pictures, tmp_path)
    for before, after in zip(pictures, sr_data.read_pictures(tmp_path), strict=True):
        assert (before.name, before.weight) == (after.name, after.weight)
        for a, b in zip((before.hr, *before.variants), (after.hr, *after.variants), strict=True):
            assert np.array_equal(a, b)


def test_training_learns_and_resumes_exactly(recipe, pictures, tmp_path):
    train_sr, sr_data = recipe
    settings = train_sr.Settings(scale=2, width=8, depth=2, side=16, batch=4, warm_up=1)
    batches = [
        sr_data.CropSampler(pictures, 2, 16, np.random.default_rng(k)).batch(4) for k in range(24)
    ]
    run = train_sr.Run(settings, "cpu")
    losses = [run.train_step(lr, hr, 0.1, bf16=False) for lr, hr in batches[:20]]
    assert sum(losses[-5:]) < sum(losses[:5])
    run.save(tmp_path / "last.pt")
    again = train_sr.Run(settings, "cpu")
    again.restore(tmp_path / "last.pt")
    for lr, hr in batches[20:]:
        for one in (run, again):
            one.train_step(lr, hr, 0.1, bf16=False)
    assert again.step == 24
    for key, value in run.average.items():
        assert torch.equal(value, again.average[key])


def test_other_settings_do_not_resume(recipe, tmp_path):
    train_sr, _ = recipe
    train_sr.Run(train_sr.Settings(scale=2, width=8, depth=2), "cpu").save(tmp_path / "last.pt")
    other = train_sr.Run(train_sr.Settings(scale=2, width=8, depth=3), "cpu")
    with pytest.raises(SystemExit, match="another --work"):
        other.restore(tmp_path / "last.pt")


def test_rate_rises_then_falls_to_the_end_of_the_budget(recipe):
    train_sr, _ = recipe
    run = train_sr.Run(train_sr.Settings(scale=2, width=8, depth=1), "cpu")
    assert run.learning_rate(0) < 0.01 * run.settings.rate
    run.step = 1000
    assert run.learning_rate(0) == pytest.approx(run.settings.rate)
    assert run.learning_rate(0.5) == pytest.approx(run.settings.rate / 2, rel=0.01)
    assert run.learning_rate(1) == pytest.approx(run.settings.final_rate)
