"""The table of what saved evaluations cost."""

from __future__ import annotations

import pytest
import torch

from dtg_restore.bench import caching
from dtg_restore.bench.caching import decibel, line, measure

REPORT = {
    "evaluations": {"cond": 4, "uncond": 2},
    **{idea: {"largest_error": 0.1} for idea in ("elision", "reuse", "caching")},
}


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ({"reuse_tol": 1e-6}, {"reuse_tol": 1.0}, {"cache_tol": 1.0})
    monkeypatch.setattr(caching, "WAYS", ways)
    clip = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    exact, reused, cached = measure([clip], [6], seeds=1, t_start=0.4)
    assert (exact["evaluations"], exact["full"], exact["psnr"]) == (12, 12, None)
    assert reused["evaluations"] == 8 and reused["psnr"] > 35
    assert cached["evaluations"] == 10 and cached["largest_estimate"]["caching"] > 0
    assert "12.0 of 12  exact" in line(exact) and "reuse_tol 1" in line(reused)


def test_the_mean_is_of_errors() -> None:
    found = caching.row({"steps": 4}, [(1e-4, REPORT), (3e-4, REPORT)])
    assert found["psnr"] == pytest.approx(decibel(2e-4)) and decibel(1e-4) == pytest.approx(40)
    assert found["smallest_psnr"] == decibel(3e-4) and found["evaluations"] == 6
