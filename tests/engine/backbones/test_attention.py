"""The setting of attention: it reaches every layer, is refused with reasons, and is reported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones import attention as module
from dtg_restore.engine.backbones.attention import Attend
from dtg_restore.engine.backbones.blocks import Attention, Block, rope_3d
from dtg_restore.engine.backbones.mini import MiniBackbone, MiniDiT
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.plan import describe, make_plan
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.schedule import Node
from dtg_restore.kernels import native
from dtg_restore.kernels.attention import OP, reference
from dtg_restore.kernels.dispatch import Implementation

CPU = torch.device("cpu")
NODES = [Node(0.4, 0.3, 1.5, 1.5, -0.5), Node(0.3, 0.2, 1.5, 1.5, -0.5)]
NODES.append(Node(0.0, 0.0, 1.0, 1.0, 0.0))
# The heads of the small model are too narrow for the native one.
EXACT = {"asked": "auto", "used": ["sdpa"], "error": None}

Report = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DTG_KERNELS", raising=False)


@pytest.fixture
def sage(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """An 8-bit attention that is off by a share of its result; the list has its calls."""

    def sage(error: float) -> list[int]:
        calls: list[int] = []

        def inexact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            calls.append(k.shape[2])
            return (1 + error) * reference(q, k, v)

        rows = [i for i in OP.faster if i.name != "sage"]
        rows.append(Implementation("sage", lambda: inexact, only_by_name=lambda *_: ["8 bits"]))
        op = replace(OP, faster=tuple(rows))
        monkeypatch.setattr(module, "OP", op)
        # In the package this name is the op itself.
        monkeypatch.setattr(sys.modules["dtg_restore.kernels.attention"], "OP", op)
        return calls

    return sage


@pytest.fixture
def report(load: Callable[..., Restorer], clip: Callable[..., Tensor]) -> Report:
    """The report's line on attention after a run over two chunks."""

    def report(restorer: Restorer | None = None, **settings: Any) -> dict[str, Any]:
        run = (restorer or load(**settings)).run((16, 24))
        assert len(list(run.frames(iter(clip(6, 16, 24)), 0, None))) == 6
        return run.report()["attention"]

    return report


def test_report_has_what_was_asked_and_used(report: Report) -> None:
    assert report() == EXACT
    assert report(attention="sdpa") == EXACT | {"asked": "sdpa"}
    assert report(backbone="none", sr="mini-x2") is None


def test_the_choice_of_the_environment_is_reported(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTG_KERNELS", "attention=reference")
    assert report() == EXACT | {"used": ["reference"]}
    assert report(attention="sdpa")["used"] == ["sdpa"]  # the setting is nearer
    monkeypatch.setenv("DTG_KERNELS", "attention=magic")
    with pytest.raises(EngineError, match="no implementation 'magic'"):
        report()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["flash3", "flash2", "cudnn", "xformers", "sage"])
def test_impossible_by_name_ends_the_load_with_reasons(
    load: Callable[..., Restorer], weights: Path, name: str
) -> None:
    with pytest.raises(EngineError, match=f"attention: {name} cannot run: it needs a GPU of sm_"):
        load(attention=name)
    with pytest.raises(EngineError, match=name):
        make_plan(RestoreConfig(backbone=str(weights), device="cpu", attention=name), 16, 16)


def test_it_is_settled_when_loaded(load: Callable[..., Restorer]) -> None:
    with pytest.raises(ConfigError, match="attention cannot change without loading"):
        load().configure(attention="sdpa")


def test_the_plan_names_it() -> None:
    own = "sdpa" if native.missing() else "native"
    assert describe(make_plan(RestoreConfig(device="cpu"), 16, 16))["attention"] == own


def test_error_of_8_bits(
    report: Report,
    load: Callable[..., Restorer],
    sage: Callable[[float], list[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Known by construction; measured again in the next run, without a trace of the one before."""
    sage(0.02)
    restorer = load(attention="sage")
    for error in (0.03, 0.01):
        sage(error)
        found = report(restorer)
        assert found["asked"] == "sage" and found["used"] == ["sage"]
        assert found["error"] == pytest.approx(error, rel=1e-3)
    assert not caplog.records


def test_large_error_of_8_bits_warns_once_a_run(
    report: Report, sage: Callable[[float], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    sage(0.08)
    with caplog.at_level(logging.WARNING, logger="dtg_restore"):
        assert report(attention="sage")["error"] == pytest.approx(0.08, rel=1e-3)
    (record,) = caplog.records
    assert "off by 8.0 %" in record.getMessage()


def test_each_layer_is_measured_once_a_run(
    network: MiniDiT, sage: Callable[[float], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = sage(0.01)
    measured: list[int] = []
    measure = Attend._measure
    monkeypatch.setattr(
        Attend,
        "_measure",
        lambda self, layer, *a: measured.append(layer) or measure(self, layer, *a),
    )
    backbone = MiniBackbone(network, CPU, torch.float32, "sage")
    velocity(backbone)
    velocity(backbone)
    assert measured == [0, 1] and len(calls) == 4  # self- and cross-attention of one block
    backbone.attend.begin()
    velocity(backbone)
    assert measured == [0, 1] * 2


def velocity(backbone: Any) -> Tensor:
    x = torch.randn(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    context = backbone.prepare("clean", "null", NODES)
    t = torch.tensor([NODES[0].t, NODES[0].tau])
    return backbone.velocity(x, t, context.at(0, ("cond", "uncond"), 1))


def test_auto_is_the_op_itself(network: MiniDiT) -> None:
    plain = MiniBackbone(network, CPU, torch.float32)
    steered = velocity(plain)
    for part in network.modules():
        if isinstance(part, Attention):
            part.attend = reference
    assert torch.equal(velocity(plain), steered)


def no_capture(*_: object, **__: object) -> None:
    pytest.fail("recorded")


def test_a_graph_passes_it_on(backbone: MiniBackbone) -> None:
    assert GraphBackbone(backbone, lambda: no_capture).attend is backbone.attend


def test_a_steered_block_is_traced_whole() -> None:
    torch.manual_seed(0)
    block = Block(48, 2, 96).requires_grad_(False)
    Attend("auto", 24, CPU, torch.float32).steer(block)
    tokens, modulation = torch.randn(1, 4, 48), torch.randn(2, 6, 48)
    arguments = (
        torch.randn(2, 6, 48),
        modulation,
        rope_3d(1, 2, 3, 24, CPU),
        block.attn2.keys_values(tokens),
    )
    exported = torch.export.export(block, arguments)
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called.count(torch.ops.aten.scaled_dot_product_attention.default) == 2
    traced = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(*arguments), block(*arguments), rtol=0, atol=1e-5)


def test_keys_and_values_of_the_condition_are_made_once(
    network: MiniDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop reads the table's own memory: it projects no token of the condition again."""
    backbone = MiniBackbone(network, CPU, torch.float32)
    cross = network.blocks[0].attn2
    projected: list[str] = []
    for name in ("to_q", "to_k", "to_v"):
        getattr(cross, name).register_forward_hook(lambda *_, name=name: projected.append(name))
    seen: list[tuple[int, int]] = []
    attend = cross.attend
    cross.attend = lambda q, k, v: seen.append((k.data_ptr(), v.data_ptr())) or attend(q, k, v)

    context = backbone.prepare("clean", "null", NODES)
    assert projected == ["to_k", "to_v"]
    x, t = torch.randn(1, 3, 2, 16, 16), torch.tensor([0.4])
    for index in (0, 1):
        for branch in ("cond", "uncond"):
            condition = context.at(index, (branch,), 1)
            backbone.velocity(x, t, condition)
            ((key, value),) = condition.keys_values
            assert seen[-1] == (key.data_ptr(), value.data_ptr())
    assert projected == ["to_k", "to_v"] + 4 * ["to_q"]
    assert seen[:2] == seen[2:] and seen[0] != seen[1]
