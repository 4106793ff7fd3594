"""Start-up, steps and memory of what executes a restoration, each in a process of its own."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from dtg_restore.bench import engines
from dtg_restore.bench.engines import EAGER, Subject, able_sides, line, rows
from dtg_restore.bench.pattern import moving


def test_eager_against_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "subject", lambda name: Subject(name, (4, 16, 24)))
    target = tmp_path / "x.json"
    arguments = ["engines", "--sides", "ort", "--rounds", "1", "--steps", "3", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(target)])
    engines.main()
    found = json.loads(target.read_text())
    eager, ort = found["rows"]
    assert (eager["name"], ort["name"]) == (EAGER, "ort")
    assert eager["max_error"] == 0 < ort["max_error"] < 1e-4  # other sums, the same network
    assert eager["export"] is None and ort["export"] > 0
    for row in (eager, ort):
        assert row["start"] > 0 and row["step"] > 0 and row["peak_bytes"]["host"] > 1e8
        assert len(row["seconds"]["start"]) == 1 and row["name"] in line(row)
    assert found["settings"]["steps"] == 3 and "commit" in found["provenance"]


def test_compiled_passes_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced alone
    about = Subject("mini", (4, 16, 24))
    settings, frames = engines.settings_of(about, 2, 1), torch.stack(list(moving(4, 16, 24)))
    made = {s: engines.run_side(s, "mini", settings, frames) for s in (EAGER, engines.COMPILE)}
    eager, compiled = (made[side]["restored"] for side in made)
    assert len(made[engines.COMPILE]["ends"]) == 2
    assert 0 < (eager - compiled).abs().max() < 1e-5  # references in place of own kernels


def test_a_side_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.ones(1, 3, 2, 2)

    def process(side: str, *_: object) -> dict[str, object]:
        if side == "ort":
            raise RuntimeError("no memory")
        return {"start": 1.0, "steps": [2.0], "peak": {"host": 3}, "restored": frames}

    monkeypatch.setattr(engines, "process", process)
    monkeypatch.setattr(engines, "bundle_of", lambda side, about: ("folder", None))
    found, failed = engines.measure(Subject("mini", (4, 16, 16)), [EAGER, "ort", "aot"], 2, 2, 1)
    assert [row["name"] for row in found] == [EAGER, "aot"] and failed == {"ort": "no memory"}


def test_what_is_not_here() -> None:
    able, missing = able_sides(torch.device("cpu"))
    assert EAGER in able and "graph" not in able and "no GPU" in missing["graph"]
    assert not set(able) & set(missing)


def test_rows() -> None:
    def run(start: float, steps: list[float], peak: int, value: float) -> dict[str, object]:
        restored = torch.tensor([1.0, value])
        return {"start": start, "steps": steps, "peak": {"host": peak}, "restored": restored}

    made = {
        EAGER: [run(4, [2, 3], 10, 0), run(5, [4, 4], 12, 0)],
        "aot": [run(9, [5, 1], 8, 0.25), run(2, [2, 2], 9, 0.25)],
    }
    first, second = rows(made, {"aot": 7.0})
    assert (first["start_ratio"], first["step_ratio"], first["max_error"]) == (1, 1, 0)
    assert (second["start"], second["first_start"], second["step"]) == (2, 9, 1)
    assert (second["start_ratio"], second["step_ratio"]) == (2, 2)
    assert second["peak_bytes"] == {"host": 8} and second["export"] == 7
    assert second["max_error"] == pytest.approx(0.25)
