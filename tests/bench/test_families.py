"""The memory facts of the families are those that were measured."""

from __future__ import annotations

import json

import pytest

from dtg_restore.bench.tables import RESULTS
from dtg_restore.engine.backbones import FAMILIES

ROWS = json.loads((RESULTS / "families_memory.json").read_text())["rows"]
MEASURED = {name: row["live_channels"] for name, row in ROWS.items() if "live_channels" in row}


@pytest.mark.parametrize("name", MEASURED)
def test_measured_families(name: str) -> None:
    adapter = FAMILIES[name].load().adapter
    assert adapter.live_channels == pytest.approx(MEASURED[name], rel=0.02)


def test_others_take_the_most() -> None:
    assert len(MEASURED) >= 7
    for other in ROWS.keys() - MEASURED.keys():
        assert FAMILIES[other].load().adapter.live_channels >= max(MEASURED.values()) - 0.1
