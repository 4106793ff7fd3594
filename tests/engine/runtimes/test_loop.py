"""The sampling loop as one graph: with a recorder in the place of CUDA, and on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniBackbone
from dtg_restore.engine.config import DTG, RestoreConfig
from dtg_restore.engine.errors import Interrupted
from dtg_restore.engine.plan import Plan, make_plan
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.runtimes.loop import SamplingLoop, why_stepwise
from dtg_restore.engine.schedule import nodes
from dtg_restore.engine.types import Chunk, StepInfo

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]
TABLE = nodes(DTG(t_start=0.5, steps=4, delta0=0.1, alpha0=1.7))


def branches(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
    return torch.sin(3 * x) - TABLE[index].t, torch.cos(x) - TABLE[index].tau


def state(seed: int = 0, frames: int = 4) -> Tensor:
    return torch.randn(1, 3, frames, 5, 6, generator=torch.Generator().manual_seed(seed))


def loops(recorder: Any, solver: str = "euler", table: Any = TABLE) -> tuple[SamplingLoop, Any]:
    """One that records, and one that does not."""
    return SamplingLoop(branches, table, solver, branches, recorder), SamplingLoop(
        branches, table, solver
    )


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_replays_equal_steps(recorder: Any, solver: str, steps: int) -> None:
    """Bit for bit, each chunk with another content."""
    graphed, stepwise = loops(recorder, solver, TABLE[-steps - 1 :])
    for seed in range(5):
        before = state(seed)
        x = before.clone()
        assert torch.equal(graphed(x), stepwise(before)), seed
        assert torch.equal(x, before)
    assert (recorder.records, recorder.replays) == (1, 4)
    assert graphed.describe() == {"recorded": 1, "replayed": 4, "stepwise": 1, "refused": []}


def test_results_are_memory_of_the_caller(recorder: Any) -> None:
    graphed, _ = loops(recorder)
    results, copies = [], []
    for seed in range(4):
        results.append(graphed(state(seed)))
        copies.append(results[-1].clone())
    assert all(torch.equal(a, b) for a, b in zip(results, copies, strict=True))
    assert len({result.untyped_storage().data_ptr() for result in results}) == 4


def test_every_shape_is_a_graph(recorder: Any) -> None:
    graphed, stepwise = loops(recorder)
    for seed, frames in enumerate([4, 4, 2, 4, 2, 2, 4, 3]):
        assert torch.equal(graphed(state(seed, frames)), stepwise(state(seed, frames)))
    assert recorder.records == 2 and graphed.num_stepwise == 3  # the first of 4, of 2 and of 3


def test_all_steps_are_told_after_a_replay(recorder: Any) -> None:
    graphed, stepwise = loops(recorder)
    want: list[StepInfo] = []
    stepwise(state(), want.append)
    for seed in range(4):
        seen: list[StepInfo] = []
        graphed(state(seed), seen.append)
        assert seen == want


def test_failure_to_record_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(call: Callable[[], Any], warm: bool) -> Any:
        assert warm  # the first chunk has been computed
        raise RuntimeError("operation not permitted when stream is capturing\nadvice")

    graphed, stepwise = loops(refuse)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        for seed in range(4):
            assert torch.equal(graphed(state(seed)), stepwise(state(seed)))
    assert len(caplog.messages) == 1 and "operation not permitted" in caplog.text
    assert graphed.describe()["refused"] == ["operation not permitted when stream is capturing"]
    assert (graphed.num_replayed, graphed.num_stepwise) == (0, 4)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("wrong", [0.0, float("nan"), None])
def test_a_graph_that_computes_something_else_is_not_used(
    caplog: pytest.LogCaptureFixture, wrong: float | None, steps: int
) -> None:
    """None: nothing was recorded, and the output holds what the call itself has computed."""

    def broken(call: Callable[[], Any], warm: bool) -> tuple[Callable[[], object], Any]:
        before, after = call()
        return lambda: None if wrong is None else after.fill_(wrong), (before, after)

    graphed, stepwise = loops(broken, table=TABLE[-steps - 1 :])
    for seed in range(4):
        assert torch.equal(graphed(state(seed)), stepwise(state(seed)))
    assert "its replay differs" in caplog.text and len(caplog.messages) == 1


# -- in the engine --------------------------------------------------------------------------------


@pytest.fixture
def graphed(load: Load, recorder: Any) -> Callable[..., Restorer]:
    """Restorers whose backbones record."""

    def graphed(**settings: Any) -> Restorer:
        plain = load(**settings)
        assert plain.backbone is not None
        return replace(plain, backbone=GraphBackbone(plain.backbone, lambda: recorder))

    return graphed


def restored(restorer: Restorer, frames: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The frames, and what the report says of the runtime."""
    run = restorer.run(tuple(frames.shape[-2:]))
    return torch.stack(list(run.frames(iter(frames), 0, None))), run.report()["runtime"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "heun", "steps": 3},
        {"tile": (0, 0)},
        {"guidance": "none"},
        {"branches": "sequential", "tile_batch": 2},
    ],
    ids=str,
)
def test_a_clip_is_the_same(
    load: Load, graphed: Load, clip: Clip, settings: dict[str, Any]
) -> None:
    """Three chunks of 4 frames, and one of 2 that has no second of its shape."""
    frames = clip(14, 16, 24)
    want = load(overlap=0, **settings).restore(frames)
    got, runtime = restored(graphed(overlap=0, **settings), frames)
    assert torch.equal(got, want)
    assert runtime["loops"] == {"recorded": 1, "replayed": 2, "stepwise": 2, "refused": []}


def test_report(
    load: Load, graphed: Load, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """Replays are counted like steps, also where a branch has no weight."""
    source, settings = pictures(clip(13, 16, 16)), {"steps": 3, "kappa": 40.0, "t_start": 0.4}
    want = load(**settings).restore_file(source, tmp_path / "plain")
    got = graphed(**settings).restore_file(source, tmp_path / "graphed")
    assert got["evaluations"] == want["evaluations"] and got["elision"] == want["elision"]
    assert want["elision"]["weightless"] > 0
    assert got["runtime"]["name"] == "graph"
    assert got["runtime"]["loops"] == {
        "recorded": 1, "replayed": 5, "stepwise": 1, "refused": []
    }  # fmt: skip
    assert want["runtime"] == {
        "name": "eager",
        "passes": None,
        "loops": {
            "recorded": 0,
            "replayed": 0,
            "stepwise": 6,
            "refused": ["the runtime records no graphs"],
        },
    }


def test_with_elision_passes_alone_are_recorded(
    load: Load, graphed: Load, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {"steps": 5, "elide_tol": 0.05, "alpha0": 2.0, "t_start": 0.3}
    frames = clip(9, 16, 16)
    assert torch.equal(graphed(**settings).restore(frames), load(**settings).restore(frames))
    report = graphed(**settings).restore_file(pictures(frames), tmp_path / "out")
    runtime = report["runtime"]
    assert runtime["passes"]["recorded"] > 0 and runtime["passes"]["replayed"] > 0
    assert runtime["loops"]["recorded"] == 0 and report["elision"]["saved"] > 0
    assert runtime["loops"]["refused"] == ["with elide_tol the host decides between the steps"]


def test_no_pass_is_recorded_within_the_loop(
    graphed: Load, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """mini has four kinds of pass and each occurs once in a chunk: none is recorded in the first
    one, and the others are replays."""
    report = graphed(steps=4).restore_file(pictures(clip(13, 16, 16)), tmp_path / "out")
    assert report["runtime"]["passes"] == {"recorded": 0, "replayed": 0, "refused": []}
    assert report["runtime"]["loops"]["replayed"] == 5


def test_cancelled_after_a_replay(graphed: Load, clip: Clip) -> None:
    restorer, frames = graphed(), clip(4, 16, 16)
    plan = restorer.plan(16, 16)
    assert plan is not None and restorer.backbone is not None and restorer.codec is not None
    refiner = Refiner(restorer.backbone, restorer.codec, restorer.config, plan)

    def cancel(_: StepInfo) -> None:
        raise Interrupted("cancelled")

    want = [refiner(frames, Chunk(0, 0, 4)) for _ in range(3)][0]
    with pytest.raises(Interrupted):
        refiner(frames, Chunk(0, 0, 4), cancel)
    assert torch.equal(refiner(frames, Chunk(0, 0, 4)), want)


def test_a_graph_must_fit_beside_the_codec(backbone: MiniBackbone, recorder: Any) -> None:
    config = RestoreConfig()
    plan = make_plan(config, 64, 64)
    recording = GraphBackbone(backbone, lambda: recorder)
    assert why_stepwise(recording, config, plan) == []
    (reason,) = why_stepwise(recording, config, large(plan))
    assert reason.startswith("a graph and the codec need 1000000")


def large(plan: Plan) -> Plan:
    return replace(plan, memory=replace(plan.memory, activations=10**18))


@pytest.fixture
def device() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device("cuda:0")


@pytest.mark.gpu
def test_on_a_gpu(clip: Clip, device: torch.device, load: Load) -> None:
    settings = {"device": str(device), "dtype": "fp32", "steps": 4}
    frames = clip(13, 16, 24)
    want = load(**settings, runtime="eager").restore(frames)
    graphed = load(**settings, runtime="graph")
    for _ in range(2):  # the second run drops the graphs of the first
        got, runtime = restored(graphed, frames)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        assert runtime["loops"] == {"recorded": 1, "replayed": 5, "stepwise": 1, "refused": []}
