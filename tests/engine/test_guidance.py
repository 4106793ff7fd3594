"""Tiles are evaluated together and blended; a branch of weight zero is not evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.dit import Conditioning
from dtg_restore.engine.backbones.mini import TAGS, MiniBackbone, MiniDiT
from dtg_restore.engine.branches import BranchPlan
from dtg_restore.engine.config import DTG
from dtg_restore.engine.elision import Elision
from dtg_restore.engine.guidance import TiledBranches
from dtg_restore.engine.reuse import Reuse
from dtg_restore.engine.sampler import sample
from dtg_restore.engine.schedule import Node, nodes
from dtg_restore.engine.tiling import tiles

SIZE = (24, 40)
GUIDED = nodes(DTG(t_start=0.5, steps=3, delta0=0.2, alpha0=2.0, schedule="linear"))


class Spy:
    """A backbone that records its calls; velocity by default the time, per sample."""

    device = torch.device("cpu")

    def __init__(self, velocity=None):
        self.calls: list[tuple[Tensor, Tensor, object]] = []
        self._velocity = velocity or (lambda x, t: t[:, None, None, None, None].expand_as(x))

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Conditioning:
        return (index, tuple(branches), repeat)  # type: ignore[return-value]

    def velocity(self, x: Tensor, t: Tensor, condition: object) -> Tensor:
        self.calls.append((x, t, condition))
        return self._velocity(x, t).clone()


def branches_of(
    backbone,
    table: list[Node],
    tile=(16, 16),
    overlap: int = 8,
    batch: int = 4,
    context=None,
    elision: Elision | None = None,
    way: str = "batched",
) -> TiledBranches:
    cut = tiles(*SIZE, tile, overlap, 8)
    plan = BranchPlan(way, {}, torch.device("cpu"))
    reuse = Reuse(elision or Elision(0.0))
    return TiledBranches(backbone, context or backbone, table, cut, SIZE, batch, reuse, plan)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 3, 4, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_each_sample_gets_its_own_time_and_condition(x: Tensor, batch: int) -> None:
    spy = Spy()
    v_cond, v_uncond = branches_of(spy, GUIDED, batch=batch)(x, 1)
    node = GUIDED[1]
    assert node.tau < node.t
    torch.testing.assert_close(v_cond, torch.full_like(x, node.t))
    torch.testing.assert_close(v_uncond, torch.full_like(x, node.tau))
    assert len(spy.calls) == -(-8 // batch)
    for cut, t, condition in spy.calls:
        count = len(cut) // 2
        assert condition == (1, ("cond", "uncond"), count) and count <= batch
        assert torch.equal(cut[:count], cut[count:])  # both branches see the same x
        assert t.tolist() == pytest.approx([node.t] * count + [node.tau] * count)


@pytest.mark.parametrize("tile", [(16, 16), (24, 16), (40, 24), (0, 0)])
def test_blending_a_local_field_gives_the_field(x: Tensor, tile: tuple[int, int]) -> None:
    """Where tiles agree, blending changes nothing and every pixel lands where it came from."""
    v_cond, v_uncond = branches_of(Spy(lambda x, t: torch.sin(3 * x)), GUIDED, tile)(x, 0)
    torch.testing.assert_close(v_cond, torch.sin(3 * x), rtol=0, atol=1e-6)
    torch.testing.assert_close(v_uncond, torch.sin(3 * x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_how_many_tiles_go_together_changes_no_bit(x: Tensor, batch: int) -> None:
    """Of a field that differs between tiles, and whose memory is not contiguous."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return (x.cumsum(-1) * t[:, None, None, None, None]).mT.contiguous().mT

    at_once = branches_of(Spy(velocity), GUIDED, batch=8)(x, 1)
    assert all(map(torch.equal, branches_of(Spy(velocity), GUIDED, batch=batch)(x, 1), at_once))


def test_alpha_one_makes_no_unconditional_call(x: Tensor) -> None:
    spy, table = Spy(), nodes(DTG(t_start=0.5, steps=3, delta0=0.2, alpha0=1.0))
    branches = branches_of(spy, table, tile=(0, 0))
    v_cond, v_uncond = branches(x, 0)
    assert v_uncond is None
    sample(branches, x, table)
    assert [condition[1] for _, _, condition in spy.calls] == [("cond",)] * 4
    assert branches.evaluations == Counter(cond=4)
    assert all(t.tolist() == pytest.approx([table[c[0]].t]) for _, t, c in spy.calls)


def test_elision_equals_the_run_without_it(network: MiniDiT, x: Tensor) -> None:
    """With alpha = 1 the unconditional branch has no weight: leaving it out changes no bit."""
    table = nodes(DTG(t_start=0.5, steps=3, delta0=0.2, alpha0=1.0))
    backbone = MiniBackbone(network, torch.device("cpu"), torch.float32)
    context = backbone.prepare("clean", "null", table)
    elided = sample(branches_of(backbone, table, context=context), x, table)
    cond = branches_of(backbone, table, context=context)
    tags = torch.tensor([TAGS.index("null")])

    def both(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        t = torch.tensor([table[index].tau])
        return cond(x, index)[0], network(x, t, network.condition(t, tags))

    assert torch.equal(sample(both, x, table), elided)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_sequential_calls_one_branch_after_the_other(x: Tensor, batch: int) -> None:
    spy = Spy()
    v_cond, v_uncond = branches_of(spy, GUIDED, batch=batch, way="sequential")(x, 1)
    torch.testing.assert_close(v_cond, torch.full_like(x, GUIDED[1].t))
    torch.testing.assert_close(v_uncond, torch.full_like(x, GUIDED[1].tau))
    assert len(spy.calls) == 2 * -(-8 // batch)
    for (first, _, cond), (second, _, uncond) in zip(spy.calls[::2], spy.calls[1::2], strict=True):
        assert torch.equal(first, second) and len(first) <= batch
        assert cond == (1, ("cond",), len(first)) and uncond == (1, ("uncond",), len(first))


def test_both_ways_agree_in_fp32(network: MiniDiT, x: Tensor) -> None:
    backbone = MiniBackbone(network, torch.device("cpu"), torch.float32)
    context = backbone.prepare("clean", "null", GUIDED)
    batched, sequential = (
        sample(branches_of(backbone, GUIDED, context=context, way=way), x, GUIDED)
        for way in ("batched", "sequential")
    )
    torch.testing.assert_close(sequential, batched, rtol=0, atol=1e-5)


def test_elided_evaluations_are_not_made(x: Tensor) -> None:
    """With the times as velocities, the gap at node 0 is (0.5 - 0.3) / (2 * 0.5 - 0.3) = 2 / 7."""
    spy, elision = Spy(), Elision(0.3)
    branches = branches_of(spy, GUIDED, tile=(0, 0), elision=elision)
    sample(branches, x, GUIDED)
    assert [c[1] for _, _, c in spy.calls] == [("cond", "uncond"), ("cond",), ("cond",)]
    assert branches.evaluations == Counter(cond=3, uncond=1)
    assert (elision.saved, elision.weightless) == (2, 0)
    assert elision.largest_error == pytest.approx(2 / 3 * 2 / 7, rel=1e-5)
    spy.calls.clear()
    sample(branches, x, GUIDED)  # the next chunk is measured anew
    assert [c[1] for _, _, c in spy.calls] == [("cond", "uncond"), ("cond",), ("cond",)]


def test_evaluations_are_counted_by_branch(x: Tensor) -> None:
    table = nodes(DTG(t_start=0.5, steps=4, delta0=0.1, alpha0=2.0))
    branches = branches_of(Spy(), table)
    sample(branches, x, table)
    assert branches.evaluations == Counter(cond=4, uncond=4)
    sample(branches, x, table, "heun")
    assert branches.evaluations == Counter(cond=4 + 7, uncond=4 + 7)


@pytest.mark.parametrize("tile", [(16, 16), (0, 0)])
def test_results_are_new_memory_every_time(x: Tensor, tile: tuple[int, int]) -> None:
    branches = branches_of(Spy(), GUIDED, tile)
    first = branches(x, 0)
    kept = [v.clone() for v in first]
    second = branches(x, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert len({v.untyped_storage().data_ptr() for v in (*first, *second, x)}) == 5


def test_mini_through_tiles_by_hand(network: MiniDiT, x: Tensor) -> None:
    """One full tile: the guided step of a batched call equals two plain passes of the network."""
    backbone = MiniBackbone(network, torch.device("cpu"), torch.float32)
    context = backbone.prepare("clean", "null", GUIDED)
    v_cond, v_uncond = branches_of(backbone, GUIDED, (0, 0), context=context)(x, 1)
    for got, time, tag in ((v_cond, GUIDED[1].t, 0), (v_uncond, GUIDED[1].tau, 2)):
        t = torch.tensor([time])
        want = network(x, t, network.condition(t, torch.tensor([tag]), (1, 4, 4)))
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert (v_cond - v_uncond).abs().max() > 1e-2
