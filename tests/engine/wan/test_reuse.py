"""Reuse and caching with a network that cuts its state into the same blocks at every node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from dtg_restore.bench.caching import restore
from dtg_restore.bench.metrics import psnr
from dtg_restore.engine.restorer import Restorer


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_less_is_evaluated_and_little_changes(
    model: Path, clip: Callable[..., Tensor], solver: str
) -> None:
    exact = Restorer.load(
        backbone=str(model),
        prompt_embeds=str(model / "prompts.safetensors"),
        **{"sr": "none", "device": "cpu", "solver": solver},
        **{"steps": 8, "t_start": 0.6, "alpha0": 2.0},
    )
    frames = clip(5, 32, 48)
    want, full = restore(exact, frames)
    reused, report = restore(exact.configure(reuse_tol=0.1), frames)
    assert report["evaluations"]["cond"] == full["evaluations"]["cond"]
    assert report["evaluations"]["uncond"] <= full["evaluations"]["uncond"] // 2
    assert 45 < psnr(reused, want) < 100
    cached, report = restore(exact.configure(reuse_tol=0.1, cache_tol=0.8), frames)
    assert 0 < report["caching"]["saved"]["cond"] < full["evaluations"]["cond"] - 2
    assert 35 < psnr(cached, want) < 100
