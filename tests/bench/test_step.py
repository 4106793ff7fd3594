"""One step of guidance by path: all that make both evaluations agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from dtg_restore.bench import step
from dtg_restore.bench.step import line, measure, rows


@pytest.mark.parametrize("name", ["mini", "tiny"])
def test_paths_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MINI", (3, 4, 16, 16))
    found = measure(name, torch.device("cpu"), rounds=1, compiled=False)
    errors = {row["path"]: row["max_error"] for row in found}
    assert list(errors)[0] == "sequential, reference kernels" and len(errors) >= 5
    assert errors.pop("elided") > 1e-4  # both evaluations count in the others
    assert max(errors.values()) < 1e-4
    assert all(row["best_s"] > 0 and row["path"] in line(row) for row in found)


def test_rows() -> None:
    results = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.0, 2.2])}
    first, second = rows("m", results, {"a": [2.0, 4.0], "b": [1.0, 3.0]})
    assert (first["ratio"], first["max_error"]) == (1, 0)
    assert (second["ratio"], second["median_s"]) == (2, 2)
    assert second["max_error"] == pytest.approx(0.1)


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    arguments = ["step", "--models", "tiny", "--rounds", "1", "--json", str(target)]
    monkeypatch.setattr(sys, "argv", arguments)
    step.main()
    found = json.loads(target.read_text())
    assert {row["model"] for row in found["rows"]} == {"tiny"}
    assert found["settings"]["rounds"] == 1 and "commit" in found["provenance"]
