"""Shapes that a bundle has no engine for, and the network that takes over."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.bundle.manifest import read_manifest, write_manifest
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.restorer import Restorer

SMALL: dict[str, Any] = {"sr": "none", "device": "cpu", "overlap": 2, "tile_overlap": 8, "steps": 2}
OTHER: dict[str, Any] = {"tile": (16, 24), "chunk": 6}  # no engine has it


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * (a - b).double().square().mean().log10().item()


@pytest.fixture
def from_elsewhere(bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """The bundle, with another source of its weights."""

    def change(**source: str) -> Path:
        folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
        manifest = read_manifest(folder)
        models = dict(manifest.models)
        models["backbone"] = models["backbone"] | {"source": models["backbone"]["source"] | source}
        write_manifest(folder, replace(manifest, models=models))
        return folder

    return change


def test_the_network_takes_over_and_it_is_said_once(
    bundle: Path, weights: Path, clip: Callable[..., Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    frames = clip(10, 37, 30)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        ours = Restorer.open(bundle, **SMALL, **OTHER)
        results = [ours.restore(frames) for _ in range(2)]
    expected = Restorer.load(backbone=str(weights), **SMALL, **OTHER).restore(frames)
    assert all(psnr(result, expected) > 100 for result in results)
    (record,) = caplog.records
    assert "24x16 pixels of 4 frames" in record.message and str(bundle) in record.message


def test_engines_say_nothing(
    bundle: Path, clip: Callable[..., Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        Restorer.open(bundle, **SMALL).restore(clip(5, 20, 30))
    assert not caplog.records


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"path": "/nowhere/at.all"}, "weights that it was made of are not at /nowhere/at.all"),
        ({"sha256": "0" * 64}, "is not what it was made of any more"),
    ],
)
def test_weights_that_are_not_there(
    from_elsewhere: Callable[..., Path],
    clip: Callable[..., Tensor],
    source: dict[str, str],
    names: str,
) -> None:
    folder = from_elsewhere(**source)
    frames = clip(4, 16, 24)
    Restorer.open(folder, **SMALL).restore(frames)  # engines need no weights
    with pytest.raises(EngineError, match=names):
        Restorer.open(folder, **SMALL, **OTHER).restore(frames)


def test_a_runtime_by_name_refuses(bundle: Path, clip: Callable[..., Tensor]) -> None:
    named = Restorer.open(bundle, **SMALL, runtime="ort")
    with pytest.raises(ConfigError, match=r"tile is 16x24 and chunk is 6.*24x16 pixels of 4"):
        named.configure(**OTHER).restore(clip(4, 16, 24))
    assert named.backbone is not None
    x = torch.zeros(1, 3, 2, 8, 8)
    with pytest.raises(
        ConfigError, match="no engine for 8x8 pixels of 2 frames, but for 24x16 pixels of 4 frames"
    ):
        named.backbone.velocity(x, torch.zeros(1), ())
