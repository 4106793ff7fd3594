"""The generic benchmark of ops: what it counts, what it compares, and ops of every kind."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.bench import kernels
from dtg_restore.bench.kernels import COMPILED, COPY, compared, held_bytes, line, max_error, measure
from dtg_restore.kernels import OPS
from dtg_restore.kernels.dispatch import Case, Implementation, Op, Tolerance

CPU = torch.device("cpu")


def reference(parts: list[Tensor], table: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Takes a list and integers, gives a tuple."""
    return torch.stack(parts).sum(0) * scale, (table + 1).to(torch.uint8)


def arguments(dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
    parts = [torch.ones(4, 6, dtype=dtype, device=device) for _ in range(3)]
    return parts, torch.zeros(5, dtype=torch.uint8, device=device), 2.0


def made(function: Any = reference, **settings: Any) -> Op:
    return Op(
        name="made",
        formula="",
        reference=function,
        faster=(Implementation("absent", lambda: reference, lambda: ["it is not here"]),),
        tolerance={torch.float32: Tolerance(0, 0)},
        cases=(Case("production", arguments),),
        **settings,
    )


def rows_of(op: Op, with_compiled: bool = False) -> dict[str, dict[str, Any]]:
    rows = measure(op, op.cases[-1], torch.float32, CPU, 1, 1e9, with_compiled)
    assert all(row["implementation"] in line(row) for row in rows)
    return {row["implementation"]: row for row in rows}


def test_rows_of_an_op_on_lists_integers_and_tuples() -> None:
    rows = rows_of(made())
    assert list(rows) == ["absent", "reference", COPY]
    assert rows["absent"]["reasons"] == ["it is not here"] and "best_s" not in rows["absent"]
    assert rows["reference"]["bytes"] == 4 * 24 * 4 + 2 * 5  # three inputs, one result; two tables
    assert rows["reference"]["ratio"] == 1 and rows["reference"]["ratio_to_compiled"] is None
    assert rows["reference"]["max_abs_error"] == 0


def test_an_op_may_declare_what_it_moves() -> None:
    assert rows_of(made(moved_bytes=lambda parts, *_: 7 * len(parts)))["reference"]["bytes"] == 21


def test_a_reference_that_cannot_be_compiled_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("not for\n this compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    rows = rows_of(made(), with_compiled=True)
    assert rows[COMPILED]["reasons"] == ["torch.compile: not for this compiler"]
    assert rows["reference"]["best_s"] > 0 and "best_s" not in rows[COMPILED]


def test_compiled_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: eager(f, backend="eager", **kw))
    rows = rows_of(made(), with_compiled=True)
    assert rows[COMPILED]["ratio_to_compiled"] == 1 and rows["reference"]["ratio_to_compiled"] > 0


def test_shares() -> None:
    times = {"fast": 1.0, "reference": 4.0, COMPILED: 2.0, COPY: 0.5}
    rows = [{"implementation": name, "bytes": 100, "best_s": s} for name, s in times.items()]
    fast = next(compared(rows, bandwidth=200.0))
    assert (fast["ratio"], fast["ratio_to_compiled"]) == (4, 2)
    assert (fast["share_of_bandwidth"], fast["share_of_copy"], fast["bytes_per_s"]) == (
        0.5,
        0.5,
        100,
    )


def test_what_is_expanded_is_held_once() -> None:
    assert held_bytes(torch.ones(3, 1, 5).expand(3, 4, 5)) == 60
    assert held_bytes(torch.ones(0, 3)) == 0 and held_bytes(torch.tensor(1.0)) == 4
    assert held_bytes(torch.ones(6, 4)[::2]) == 48


def test_tensors_of_dataclasses_count() -> None:
    @dataclass
    class Weights:
        taps: int
        forms: tuple[Tensor, ...]

    forms = torch.ones(2), torch.ones(3)
    assert list(map(len, kernels.tensors((1, [Weights(3, forms)])))) == [2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.bool])
def test_errors_of_integers_do_not_wrap(dtype: torch.dtype) -> None:
    small, large = torch.zeros(2).to(dtype), torch.ones(2).to(dtype)
    assert max_error((small, [small]), (large, [small])) == 1


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "results" / "x.json"
    monkeypatch.setattr(kernels, "OPS", OPS[:1])
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device: 1e10)
    given = ["kernels", "--device", "cpu", "--rounds", "1", "--no-compile", "--json", str(target)]
    monkeypatch.setattr(sys, "argv", given)
    kernels.main()
    found = json.loads(target.read_text())
    assert {row["op"] for row in found["rows"]} == {OPS[0].name}
    assert found["copy_bytes_per_s"] == 1e10 and "commit" in found["provenance"]
