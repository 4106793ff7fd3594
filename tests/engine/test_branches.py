"""The table of how branches are called: measured once, the first to store it wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine import branches
from dtg_restore.engine.branches import BranchPlan, measure, row_of
from dtg_restore.engine.restorer import Restorer

CPU = torch.device("cpu")
SHAPE = (1, 3, 4, 8, 8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "branches"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that calls are said to take; "measured" counts the measurements."""
    said = {"batched": 1.0, "sequential": 1.0, "measured": 0}

    def measured(calls: Any, device: torch.device) -> dict[str, float]:
        said["measured"] += 1
        return {name: said[name] for name in calls}

    monkeypatch.setattr(branches, "measure", measured)
    return said


def ways() -> dict[str, Callable[[], None]]:
    return {"batched": lambda: None, "sequential": lambda: None}


def settled(asked: str = "auto", model: dict[str, Any] | None = None, shape=SHAPE) -> str:
    return BranchPlan(asked, model or {"name": "x"}, CPU).way(shape, ways())


def test_what_is_asked_for_is_done(cache: Path, clock: dict[str, float]) -> None:
    assert settled("sequential") == "sequential" and settled("batched") == "batched"
    assert clock["measured"] == 0 and not cache.exists()


@pytest.mark.parametrize(
    ("sequential", "way"), [(0.5, "sequential"), (0.95, "batched"), (1.0, "batched")]
)
def test_near_ties_are_batched(
    cache: Path, clock: dict[str, float], sequential: float, way: str
) -> None:
    clock["sequential"] = sequential
    assert settled() == way
    (stored,) = cache.iterdir()
    assert json.loads(stored.read_text())["seconds"] == {"batched": 1.0, "sequential": sequential}


def test_measured_once_for_a_shape_and_model(cache: Path, clock: dict[str, float]) -> None:
    clock["sequential"] = 0.5
    assert [settled(), settled()] == ["sequential"] * 2 and clock["measured"] == 1
    settled(shape=(2, *SHAPE[1:]))
    settled(model={"name": "y"})
    assert clock["measured"] == 3 and len(list(cache.iterdir())) == 3


def test_one_measurement_a_run(cache: Path, clock: dict[str, float]) -> None:
    plan = BranchPlan("auto", {}, CPU)
    assert plan.describe() == {"asked": "auto", "way": None}
    plan.way(SHAPE, ways())
    plan.way((2, *SHAPE[1:]), ways())  # a rest of tiles is called like the others
    assert clock["measured"] == 1
    assert plan.describe()["way"] == "batched" and plan.describe()["asked"] == "auto"


def test_the_first_to_store_wins(
    cache: Path, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker stores its table while this one measures, and had another result."""

    def measured(calls: Any, device: torch.device) -> dict[str, float]:
        monkeypatch.setattr(branches, "measure", lambda *_: {"batched": 2.0, "sequential": 1.0})
        assert settled() == "sequential"
        return {"batched": 1.0, "sequential": 2.0}

    monkeypatch.setattr(branches, "measure", measured)
    assert settled() == "sequential"
    assert len(list(cache.iterdir())) == 1  # and no temporary file is left


def test_what_cannot_be_stored_is_not_measured(clock: dict[str, float]) -> None:
    clock["sequential"] = 0.1  # the cache of tests is no folder
    assert settled() == "batched" and clock["measured"] == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"way": "both"}'])
def test_a_damaged_table_is_none(cache: Path, clock: dict[str, float], text: str) -> None:
    clock["sequential"] = 0.1
    settled()
    (stored,) = cache.iterdir()
    stored.write_text(text)
    assert settled() == "batched" and clock["measured"] == 1


def test_a_failing_call_leaves_nothing_behind(cache: Path) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        BranchPlan("auto", {}, CPU).way(SHAPE, {"batched": fail, "sequential": fail})
    assert not list(cache.iterdir())


def test_measure_warms_up_and_takes_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("batched", "sequential")}
    seconds = measure(calls, CPU)
    assert order == ["sequential", "batched"] + ["batched", "sequential"] * branches.ROUNDS[1]
    assert set(seconds) == set(calls) and all(0 <= s < 1 for s in seconds.values())
    assert row_of({}, {"batched": 2.0, "sequential": 1.0})["way"] == "sequential"


def test_long_calls_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "LONG", 0.0)
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("batched", "sequential")}
    assert set(measure(calls, CPU)) == set(calls)
    assert order == ["sequential", "batched"]


def test_a_run_measures_and_reports(
    load: Callable[..., Restorer],
    clip: Callable[..., Tensor],
    pictures: Any,
    tmp_path: Path,
    cache: Path,
) -> None:
    source, restorer = pictures(clip(4, 16, 24)), load()
    first = restorer.restore_file(source, tmp_path / "a")["branches"]
    again = restorer.restore_file(source, tmp_path / "b")["branches"]
    assert first == again and first["asked"] == "auto"
    assert first["key"]["shape"] == [2, 3, 4, 16, 16] and len(list(cache.iterdir())) == 1
    assert min(first["seconds"].values()) > 0
    named = restorer.configure(branches="sequential").restore_file(source, tmp_path / "c")
    assert named["branches"] == {"asked": "sequential", "way": "sequential"}
    plain = restorer.configure(guidance="none").restore_file(source, tmp_path / "d")
    assert plain["branches"] == {"asked": "auto", "way": None}
