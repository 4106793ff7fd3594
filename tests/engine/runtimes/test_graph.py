"""The graph runtime, with a recorder in the place of CUDA, and on a GPU where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniBackbone, MiniDiT
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.runtimes import graph as module
from dtg_restore.engine.runtimes import on_runtime
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.schedule import Node

NODES = [Node(0.4 - 0.1 * i, 0.3 - 0.1 * i, 1.5, 1.5, -0.5) for i in range(4)]
NODES.append(Node(0.0, 0.0, 1.0, 1.0, 0.0))


@pytest.fixture
def graphed(backbone: MiniBackbone, recorder: Any) -> GraphBackbone:
    return GraphBackbone(backbone, lambda: recorder)


def x(seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 2, 16, 16, generator=torch.Generator().manual_seed(seed))


def times(index: int) -> Tensor:
    return torch.tensor([NODES[index].t, NODES[index].tau])


def both(backbone: Any, context: Any, index: int, state: Tensor) -> Tensor:
    return backbone.velocity(state, times(index), context.at(index, ["cond", "uncond"], 1))


def test_replays_equal_eager_passes(
    backbone: MiniBackbone, graphed: GraphBackbone, recorder: Any
) -> None:
    """One graph a phase of the block grid, of which mini has four; every input differs."""
    context = graphed.prepare("clean", "null", NODES)
    for round_ in range(4):
        for index in range(4):
            state = x(10 * round_ + index)
            want = both(backbone, context, index, state)
            assert torch.equal(both(graphed, context, index, state), want), (round_, index)
    assert recorder.records == 4  # at the second call of each kind
    assert recorder.replays == 4 + 2 * 4  # once to check, then in two rounds
    assert graphed.describe() == {"recorded": 4, "replayed": 2 * 4, "refused": []}


def test_results_are_memory_of_the_caller(graphed: GraphBackbone) -> None:
    context = graphed.prepare("clean", "null", NODES)
    for _ in range(3):
        first = both(graphed, context, 0, x(1))
    kept = first.clone()
    second = both(graphed, context, 0, x(2))
    assert torch.equal(first, kept) and not torch.allclose(first, second)
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def test_other_shapes_and_branches_are_other_graphs(
    backbone: MiniBackbone, graphed: GraphBackbone, recorder: Any
) -> None:
    context = graphed.prepare("clean", "null", NODES)
    for _ in range(3):
        both(graphed, context, 0, x())
        graphed.velocity(x(batch=1), times(0)[:1], context.at(0, ["cond"], 1))
    assert recorder.records == 2
    got = graphed.velocity(x(3, 1), times(0)[1:], context.at(0, ["uncond"], 1))
    want = backbone.velocity(x(3, 1), times(0)[1:], context.at(0, ["uncond"], 1))
    assert torch.equal(got, want)


def test_large_constants_are_read_in_place(
    backbone: MiniBackbone,
    graphed: GraphBackbone,
    recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every constant counted as large, another run's constants are another graph."""
    monkeypatch.setattr(module, "IN_PLACE", 0)
    context = graphed.prepare("clean", "null", NODES)
    condition = context.at(0, ["cond", "uncond"], 1)
    for _ in range(3):
        graphed.velocity(x(), times(0), condition)
    assert recorder.records == 1
    kept = graphed._graphs
    (graph,) = kept.values()
    assert graph is not None and any(leaf is condition.final for leaf in graph.inputs)
    other = backbone.prepare("degraded", "clean", NODES).at(0, ["cond", "uncond"], 1)
    want = backbone.velocity(x(), times(0), other)
    assert torch.equal(graphed.velocity(x(), times(0), other), want)


def test_a_new_run_starts_anew(graphed: GraphBackbone, recorder: Any) -> None:
    for records in (1, 2):
        context = graphed.prepare("clean", "null", NODES)
        assert not graphed._graphs
        for _ in range(3):
            both(graphed, context, 0, x())
        assert recorder.records == records


def test_every_run_records_into_memory_of_its_own(backbone: MiniBackbone) -> None:
    """torch refuses a pool whose graphs have all been dropped."""
    captures: list[object] = []

    def make() -> Any:
        captures.append(object())
        return captures[-1]

    graphed = GraphBackbone(backbone, make)
    for _ in range(2):
        graphed.prepare("clean", "null", NODES)
        assert graphed.capture is captures[-1]
    assert len(set(map(id, captures))) == 3


def test_workspaces_stay_with_their_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's are given up before a recording, and those that it has made afterwards."""
    log: list[str] = []
    monkeypatch.setattr(
        torch._C, "_cuda_clearCublasWorkspaces", lambda: log.append("given up"), raising=False
    )
    with pytest.raises(RuntimeError), module._own_workspaces():
        log.append("recorded")
        raise RuntimeError
    assert log == ["given up", "recorded", "given up"]


def test_old_graphs_are_dropped(
    graphed: GraphBackbone, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GRAPHS", 2)
    context = graphed.prepare("clean", "null", NODES)
    for index in range(4):
        for _ in range(2):
            both(graphed, context, index, x())
    assert recorder.records == 4 and len(graphed._graphs) == 2


def test_failure_to_record_is_said_and_harmless(
    backbone: MiniBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Callable[[], Tensor], warm: bool) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    graphed = GraphBackbone(backbone, lambda: refuse)
    context = graphed.prepare("clean", "null", NODES)
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        results = [both(graphed, context, 0, x()) for _ in range(4)]
    assert all(torch.equal(results[0], result) for result in results)
    assert len(caplog.messages) == 1 and "operation not permitted" in caplog.text
    assert graphed.describe()["refused"] == ["operation not permitted when stream is capturing"]
    assert "CUDA kernel errors" not in caplog.text


@pytest.mark.parametrize("wrong", [0.0, float("nan"), None])
def test_a_graph_that_computes_something_else_is_not_used(
    backbone: MiniBackbone, caplog: pytest.LogCaptureFixture, wrong: float | None
) -> None:
    """None: nothing was recorded, and the output holds what the call itself has computed."""

    def broken(call: Callable[[], Tensor], warm: bool) -> tuple[Callable[[], object], Tensor]:
        output = call()
        return lambda: None if wrong is None else output.fill_(wrong), output

    graphed = GraphBackbone(backbone, lambda: broken)
    context = graphed.prepare("clean", "null", NODES)
    results = [both(graphed, context, 0, x()) for _ in range(4)]
    assert all(torch.equal(results[0], result) for result in results)
    assert "its replay differs" in caplog.text and graphed.describe()["replayed"] == 0


def test_choice(backbone: MiniBackbone) -> None:
    assert on_runtime(RestoreConfig(), backbone) is backbone
    with pytest.raises(ConfigError, match="runtime is 'graph': it needs a GPU"):
        on_runtime(RestoreConfig(runtime="graph"), backbone)
    with pytest.raises(ConfigError, match="offload block the weights do not stay"):
        on_runtime(RestoreConfig(runtime="graph", offload="block"), backbone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(network: MiniDiT) -> None:
    device = torch.device("cuda:0")
    backbone = MiniBackbone(network, device, torch.float32)
    graphed = on_runtime(RestoreConfig(), backbone)
    assert isinstance(graphed, GraphBackbone)
    context = graphed.prepare("clean", "null", NODES)
    for round_ in range(4):
        for index in range(4):
            state, t = x(10 * round_ + index).to(device), times(index).to(device)
            condition = context.at(index, ["cond", "uncond"], 1)
            got, want = (b.velocity(state, t, condition) for b in (graphed, backbone))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert all(graph is not None for graph in graphed._graphs.values())
    assert len(graphed._graphs) == 4
