"""Tiles and chunks are those that a bundle has engines for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dtg_restore.cli.plan import collect, lines
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.bundle.buckets import batches
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.plan import Plan, describe, make_plan

WIDE, SQUARE = Bucket(4, 16, 24, (2, 4)), Bucket(8, 16, 16, (2,))


@pytest.fixture
def plan(bundle: Path) -> Any:
    def plan(height: int = 40, width: int = 50, **settings: Any) -> Plan:
        config = RestoreConfig(**({"backbone": str(bundle), "sr": "none"} | settings))
        return make_plan(config, height, width)

    return plan


@pytest.mark.parametrize(
    ("settings", "bucket"),
    [
        ({}, WIDE),
        ({"tile": (24, 16)}, WIDE),
        ({"tile": (17, 9), "chunk": 3}, WIDE),  # rounded up as ever
        ({"tile": (16, 16)}, SQUARE),
        ({"chunk": 8}, SQUARE),
        ({"chunk": 7, "runtime": "ort"}, SQUARE),
    ],
)
def test_chunks_and_tiles_are_of_a_bucket(
    plan: Any, settings: dict[str, Any], bucket: Bucket
) -> None:
    p = plan(**settings)
    assert p.bucket == bucket
    assert p.grid.length == bucket.frames and p.tile_size == (bucket.width, bucket.height)
    assert all(p.padded_frames(count) == bucket.frames for count in range(1, bucket.frames + 1))
    assert describe(p)["bucket"]["batches"] == list(bucket.batches)
    json.dumps(describe(p))


def test_frames_are_as_large_as_a_tile(plan: Any) -> None:
    assert plan(height=7, width=100).padded_size == (16, 104)
    assert plan(height=100, width=20).padded_size == (104, 24)
    assert plan(height=100, width=100).padded_size == (104, 104)


def test_the_whole_frame_as_a_tile(plan: Any) -> None:
    assert plan(height=15, width=14, tile=(0, 0)).bucket == SQUARE
    assert plan(height=15, width=14, tile=(999, 999)).bucket == SQUARE
    assert plan(height=15, width=30, tile=(24, 0)).bucket == WIDE


def test_batches_of_both_branches_are_the_default(plan: Any) -> None:
    assert plan().tile_batch == 2 and plan(tile=(16, 16)).tile_batch == 1
    assert plan(tile_batch=5).tile_batch == 5


def test_an_overlap_that_was_not_asked_for_fits_the_tile(plan: Any) -> None:
    assert len(plan(height=16, width=48).tiles) == 3
    with pytest.raises(ConfigError, match="tile_overlap is 24"):
        plan(tile_overlap=24)


@pytest.mark.parametrize("settings", [{"tile": (32, 32)}, {"chunk": 16}, {"tile": (0, 0)}])
def test_another_shape(plan: Any, settings: dict[str, Any]) -> None:
    p = plan(**settings)
    assert p.bucket is None and describe(p)["bucket"] is None
    assert settings.get("chunk") in (None, p.grid.length)
    (setting,) = settings
    listed = "24x16 pixels of 4 frames, 16x16 pixels of 8 frames"
    with pytest.raises(ConfigError, match=rf"{setting} is .*: the bundle has engines for {listed}"):
        plan(runtime="ort", **settings)


def test_costs_are_estimated(plan: Any) -> None:
    one, all_of = plan(tile_batch=1), plan(tile_batch=2)
    assert 0 < one.memory.activations < all_of.memory.activations
    assert one.memory.waiting == 0 and one.attention is None and one.flops_per_chunk > 0


def test_the_command_says_which_engines(
    bundle: Path, clip: Callable[..., Tensor], pictures: Callable[..., Path]
) -> None:
    source = str(pictures(clip(3, 20, 30)))
    for settings, says in (({}, "ort, of this shape"), ({"chunk": 6}, "the network itself")):
        config = RestoreConfig(backbone=str(bundle), sr=str(bundle), **settings)
        facts = collect(source, config, None)
        (line,) = (line for line in lines(facts) if line.startswith("engines"))
        assert says in line and facts["output"]["width"] == 60


@given(st.integers(1, 40), st.sets(st.integers(1, 12), min_size=1))
def test_every_sample_is_in_one_call(samples: int, sizes: set[int]) -> None:
    calls = list(batches(samples, sorted(sizes)))
    assert [i for some, _ in calls for i in range(samples)[some]] == list(range(samples))
    for some, size in calls:
        count = len(range(samples)[some])
        assert size == min(s for s in sizes if s >= count) and count > 0
    assert all(size == max(sizes) for _, size in calls[:-1])
