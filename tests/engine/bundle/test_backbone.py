"""A bundle's engines against the networks that they were made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.restorer import Restorer

SMALL: dict[str, Any] = {"device": "cpu", "overlap": 2, "tile_overlap": 8, "steps": 2}
EAGER: dict[str, Any] = {"sr": "none", "chunk": 4, "tile": (24, 16)}
Clip = Callable[..., Tensor]
Change = Callable[..., Path]


def psnr(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return -10 * (a - b).double().square().mean().log10().item()


def open_small(bundle: Path, **settings: Any) -> Restorer:
    return Restorer.open(bundle, **(SMALL | {"sr": "none"} | settings))


def load_eager(weights: Path, **settings: Any) -> Restorer:
    return Restorer.load(backbone=str(weights), **(SMALL | EAGER | settings))


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((4, 16, 24), {}),  # one tile
        ((9, 37, 45), {}),  # odd sizes, many tiles, a last chunk that is filled up
        ((6, 32, 40), {"branches": "sequential", "tile_batch": 3}),  # filled up to 4
        ((6, 32, 40), {"branches": "batched", "tile_batch": 3}),  # 6 samples: 4 and 2
        ((6, 32, 40), {"steps": 4, "schedule": "exponential", "elide_tol": 0.5}),
        ((6, 32, 40), {"solver": "heun", "space": "velocity", "guidance": "cfg"}),
        ((5, 16, 16), {"tile": (16, 16), "chunk": 8}),  # the other shape
    ],
)
def test_restores_as_the_network_does(
    bundle: Path, weights: Path, clip: Clip, size: tuple[int, int, int], settings: dict[str, Any]
) -> None:
    frames = clip(*size)
    ours = open_small(bundle, **settings)
    # All chunks of a bundle are as long as its engines, hence those of the network as well.
    expected = load_eager(weights, **settings).restore(filled(frames, ours))[: size[0]]
    assert psnr(ours.restore(frames), expected) > 100


def filled(frames: Tensor, restorer: Restorer) -> Tensor:
    """Frames continued by reflection until the last chunk is full, as a bundle has them."""
    plan = restorer.plan(*frames.shape[2:])
    assert plan is not None
    chunk = plan.grid.touching(0, len(frames), len(frames))[-1]
    last = frames[chunk.start :]
    more = plan.grid.length - len(last)
    return torch.cat([frames, last.flip(0)[1 : 1 + more]]) if more else frames


def test_a_frame_smaller_than_the_tile_is_continued(bundle: Path, clip: Clip) -> None:
    frames = clip(4, 9, 13)
    restorer = open_small(bundle)
    plan = restorer.plan(9, 13)
    assert plan is not None and plan.padded_size == (16, 24) and len(plan.tiles) == 1
    whole = torch.nn.functional.pad(frames, (0, 11, 0, 7), mode="reflect")
    assert torch.equal(restorer.restore(frames), restorer.restore(whole)[:, :, :9, :13])
