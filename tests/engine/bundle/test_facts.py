"""Facts go through a manifest unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.facts import MINI
from dtg_restore.engine.bundle.facts import backbone_facts, codec_facts, sr_facts, to_json
from dtg_restore.engine.codecs.pixels import PIXELS
from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.sr import SR

BUCKETS = (Bucket(16, 64, 96, (1, 2)), Bucket(8, 32, 32, (4,)))


@pytest.mark.parametrize(
    ("facts", "back"),
    [
        (MINI, backbone_facts),
        (replace(MINI, buckets=BUCKETS, experts=(0.0, 0.9)), backbone_facts),
        (PIXELS, codec_facts),
        (SR.get("mini-x2").facts, sr_facts),
    ],
)
def test_facts_go_there_and_back(facts: Any, back: Any) -> None:
    assert back(json.loads(json.dumps(to_json(facts)))) == facts


def test_buckets_have_names_and_come_back_as_they_are() -> None:
    data = to_json(replace(MINI, buckets=BUCKETS))
    assert data["buckets"][0] == {"frames": 16, "height": 64, "width": 96, "batches": [1, 2]}
    assert isinstance(backbone_facts(data).buckets[0], Bucket)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": None},
        {"unheard_of": 1},
        {"buckets": [[1, 2]]},
        {"patch": 3},
        {"defaults": {"steps": -1}},
    ],
)
def test_anything_else_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="of a bundle cannot be read"):
        backbone_facts(to_json(MINI) | change)
