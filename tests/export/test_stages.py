"""Which stages a backbone has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.mini import MiniBackbone
from dtg_restore.engine.backbones.wan import WanBackbone
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.export import wan
from dtg_restore.export.stages import backbone_model, backbone_stages, network_of


def test_those_of_mini(make_mini: Callable[..., MiniBackbone]) -> None:
    names = [stage.name for stage in backbone_stages(make_mini(), [Bucket(2, 8, 8, (1,))])]
    assert names == ["condition.0", "velocity.0.1x2x8x8"]
    assert backbone_model(make_mini())["family"] == "mini"


def test_those_of_wan(
    make_mini: Callable[..., MiniBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = WanBackbone.__new__(WanBackbone)
    backbone.facts = make_mini().facts
    for name in ("stages", "model"):
        monkeypatch.setattr(wan, name, lambda *arguments: arguments)
    made: Any = backbone_stages(backbone, [], 7)
    assert made == (backbone, [], 7)
    assert backbone_model(backbone) == (backbone, backbone.facts.context_tokens)


def test_others_have_none(make_mini: Callable[..., MiniBackbone]) -> None:
    class Other:
        facts = make_mini().facts

    for call in (lambda: backbone_stages(Other(), []), lambda: backbone_model(Other())):  # type: ignore[arg-type]
        with pytest.raises(EngineError, match="no export: those that have one are mini, wan"):
            call()


def test_experts_are_counted(make_mini: Callable[..., MiniBackbone]) -> None:
    for expert in (-1, 1):
        with pytest.raises(ConfigError, match=f"expert is {expert}, and mini has 1"):
            network_of(make_mini(), expert)
