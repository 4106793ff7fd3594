"""What a run costs, from facts alone, agrees with what the run then does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dtg_restore.engine.backbones import facts_of
from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.plan import describe, estimate, make_plan
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sr import SR
from dtg_restore.engine.tiling import ChunkGrid

FACTS = facts_of("mini")


def plan(height: int = 100, width: int = 200, **settings: Any):
    return make_plan(RestoreConfig(**settings), height, width)


def test_defaults_are_the_backbones() -> None:
    p = plan(height=500, width=700)
    assert p.grid == ChunkGrid(FACTS.chunk, FACTS.overlap)
    assert p.tile_size == FACTS.tile and p.tile_batch == FACTS.tile_batch
    assert p.frame_size == (500, 700) and p.padded_size == (504, 704)


def test_settings_are_rounded_up_to_multiples() -> None:
    p = plan(chunk=7, overlap=3, tile=(33, 50), tile_overlap=5)
    assert p.grid == ChunkGrid(8, 4) and p.tile_size == (40, 56)
    assert plan(tile=(0, 0)).tile_size == (200, 104)
    assert plan(tile=(0, 64)).tile_size == (200, 64)


@pytest.mark.parametrize("chunk", range(1, 40))
def test_any_chunk_works_without_an_overlap_of_ones_own(chunk: int) -> None:
    grid = plan(chunk=chunk).grid
    assert grid.length in (chunk, chunk + 1) and grid.length % 2 == 0
    assert grid.overlap == min(FACTS.overlap, grid.length // 4 * 2)


def test_full_chunks_have_one_shape() -> None:
    counts = range(1, 9)
    assert [plan(chunk=8).padded_frames(n) for n in counts] == [2, 2, 4, 4, 6, 6, 8, 8]
    assert [plan(chunk=8, full_chunks=True).padded_frames(n) for n in counts] == [8] * 8


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"chunk": 8, "overlap": 6}, "overlap is 6.*8"),
        ({"tile": (64, 64), "tile_overlap": 64}, "tile_overlap is 64.*64"),
        ({"tile": (64, 64), "tile_overlap": 100}, "tile_overlap is 100.*64"),
    ],
)
def test_contradictions(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        plan(**settings)


def test_overlap_of_a_tile_that_covers_the_side_does_not_matter() -> None:
    assert len(plan(40, 40, tile=(64, 64), tile_overlap=100).tiles) == 1


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({"guidance": "none"}, 4),
        ({"guidance": "cfg"}, 8),
        ({"space": "velocity"}, 8),
        ({"alpha0": 1.0}, 4),
        ({"guidance": "none", "solver": "heun"}, 7),
        ({"guidance": "cfg", "solver": "heun"}, 14),
        ({"space": "x0", "tau_floor": 0.0, "delta0": 0.2, "schedule": "constant"}, 4),
    ],
)
def test_evaluations(settings: dict[str, Any], evaluations: int) -> None:
    """The last case: in x_0 space a lookahead to tau = 0 predicts x itself, with no pass."""
    assert plan(t_start=0.2, steps=4, **settings).evaluations == evaluations


@pytest.mark.parametrize(
    "settings", [{}, {"guidance": "none"}, {"solver": "heun"}, {"guidance": "cfg", "steps": 3}]
)
def test_the_run_does_what_the_plan_says(
    load: Callable[..., Restorer], clip: Callable[..., Tensor], settings: dict[str, Any]
) -> None:
    restorer, frames = load(**settings), clip(9, 24, 16)
    run = restorer.run((24, 16), (0,))
    assert len(list(run.frames(iter(frames), 0, None))) == 9
    cost = estimate(run.plan, None, (24, 16), (0, 9), 9, 1e9)
    assert cost["chunks"] == 4
    assert sum(run.report()["evaluations"].values()) == cost["evaluations"]


def test_estimate() -> None:
    p, sr = plan(64, 64, chunk=8, overlap=2), SR.get("mini-x2").facts
    cost = estimate(p, sr, (64, 64), (0, 20), 20, 1e9)
    assert cost["frames"] == 20 and cost["chunks"] == 3  # 0-7, 6-13, 12-19
    assert cost["refine_flops"] == 3 * p.flops_per_chunk
    assert cost["upscale_flops"] == 2 * sr.macs_per_pixel * 64 * 64 * 20
    assert estimate(p, sr, (64, 64), (0, 20), 20, 2e9)["seconds"] == cost["seconds"] / 2
    part = estimate(p, sr, (64, 64), (8, 10), 20, 1e9)
    assert part["frames"] == 2 and part["chunks"] == 1
    bare = estimate(None, sr, (64, 64), (0, 20), 20, 1e9)
    assert bare["chunks"] == bare["refine_flops"] == bare["evaluations"] == 0
    assert estimate(p, sr, (64, 64), None, None, 1e9)["seconds"] is None


def test_flops_against_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTG_KERNELS", "reference")  # torch does not count what is its own
    network, t = MiniDiT(MiniConfig()).requires_grad_(False), torch.tensor([0.3])
    condition = network.condition(t, torch.tensor([0]))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, 8, 32, 32), t, condition)
    transform = 2 * 64 * 384 * (64 + 6)  # of the codec, encode or decode: not in the estimate
    assert FACTS.flops(8, 32, 32) + 2 * transform == pytest.approx(
        counter.get_total_flops(), rel=1e-3
    )


def test_cost_grows_with_the_work_and_memory_with_the_chunk() -> None:
    small, large = plan(64, 64, chunk=8), plan(64, 64, chunk=16)
    assert large.memory.device > small.memory.device
    assert large.flops_per_chunk > 1.9 * small.flops_per_chunk
    assert (
        plan(64, 64, tile_batch=8, tile=(32, 32)).memory.device
        > plan(64, 64, tile_batch=1, tile=(32, 32)).memory.device
    )


@pytest.mark.parametrize("tile", [(96, 96), (40, 40), (96, 24), (33, 8), (128, 64)])
def test_smaller_tile_is_smaller_and_legal(tile: tuple[int, int]) -> None:
    p = plan(200, 300, tile=tile, tile_overlap=4)
    smaller = p.smaller_tile
    assert smaller is not None
    assert smaller[0] * smaller[1] < p.tile_size[0] * p.tile_size[1]
    assert plan(200, 300, tile=smaller, tile_overlap=4).tile_size == smaller
    assert plan(200, 300, tile=(32, 32)).smaller_tile is None


def test_describe_is_plain_data() -> None:
    text = json.loads(json.dumps(describe(plan(100, 200))))
    assert text["frame_size"] == [100, 200] and text["padded_size"] == [104, 200]
    assert text["chunk"] == {"length": FACTS.chunk, "overlap": FACTS.overlap}
    assert text["tiles"] == len(plan(100, 200).tiles)
