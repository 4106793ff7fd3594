"""The training recipe learns, resumes where it stopped and ships what it learned."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dtg_restore.engine.backbones.mini import MiniConfig, load_mini

pytest.importorskip("cv2", reason="OpenCV, which the recipe needs, is not installed")
RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = MiniConfig(width=24, depth=1, heads=2, ffn_dim=48)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import train_mini

    yield train_mini
    for name in ("train_mini", "footage"):
        sys.modules.pop(name, None)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2, 3, 2, 1, 1, generator=generator).expand(2, 3, 2, 16, 16).contiguous()
    eps = torch.randn(x0.shape, generator=generator)
    return x0, torch.tensor([0, 1]), torch.tensor([0.2, 0.4]), eps


def train(recipe, run, steps: int, num_steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = recipe.velocity_loss(run.model, *batch()[:3], batch()[3], (0, 0, 0))
        losses.append(loss.item())
        run.advance(loss, num_steps, warm_up=2)
    return losses


def test_the_loss_falls(recipe) -> None:
    run = recipe.Training(SMALL, 3e-3, seed=0)
    losses = train(recipe, run, 20, 100)
    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_run_goes_on_as_an_undisturbed_one(recipe, tmp_path) -> None:
    whole = recipe.Training(SMALL, 3e-3, seed=0)
    train(recipe, whole, 6, 100)
    first = recipe.Training(SMALL, 3e-3, seed=0)
    train(recipe, first, 3, 100)
    first.save(tmp_path / "mini.pt")
    second = recipe.Training(SMALL, 3e-3, seed=5)
    second.load(tmp_path / "mini.pt")
    train(recipe, second, 3, 100)
    assert second.step == whole.step
    for mine, theirs in zip(second.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_shipped_weights_load_as_a_backbone(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "MiniConfig", lambda: SMALL)
    run = recipe.Training(SMALL, 3e-3, seed=0)
    train(recipe, run, 2, 100)
    run.save(tmp_path / "mini.pt")
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n')
    ship = tmp_path / "mini.safetensors"
    recipe.ship(argparse.Namespace(work=tmp_path, learning_rate=3e-3, seed=0, ship=ship))
    network = load_mini(ship, torch.device("cpu"), torch.float32).network
    for mine, theirs in zip(network.parameters(), run.average.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_held_out_scenes_and_the_demo_are_never_cut(recipe, shared_data) -> None:
    import footage

    names = [path.name for path, _ in footage._sources(shared_data)]
    assert names and not any(name.startswith(footage.HELD_OUT + footage.DEMO) for name in names)
    assert not any(
        "eval_only" in str(path) or "vsr" in str(path) for path, _ in footage._sources(shared_data)
    )


def test_crops_are_of_the_size_that_was_asked_for(recipe, tmp_path) -> None:
    import footage

    material = footage.Footage.__new__(footage.Footage)
    rng = np.random.default_rng(0)
    material.clips = [rng.integers(0, 256, (12, 90, 120, 3), dtype=np.uint8)]
    material.photos = [rng.integers(0, 256, (1, 160, 150, 3), dtype=np.uint8)]
    for _ in range(20):
        crop = material.cut(rng, 8, 64)
        assert crop.shape == (8, 64, 64, 3) and crop.dtype == np.uint8
