"""Facts of models as plain data for the manifest, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from ..backbones.base import BackboneFacts, Bucket
from ..codecs.base import CodecFacts
from ..config import DTG
from ..errors import ConfigError, EngineError
from ..sr.base import SRFacts

T = TypeVar("T")


def to_json(facts: Any) -> Any:
    """Names and values of a dataclass or a named tuple, all the way down; tuples become lists."""
    if is_dataclass(facts):
        return {field.name: to_json(getattr(facts, field.name)) for field in fields(facts)}
    if isinstance(facts, tuple) and hasattr(facts, "_asdict"):
        return {name: to_json(value) for name, value in facts._asdict().items()}
    if isinstance(facts, (list, tuple)):
        return [to_json(value) for value in facts]
    return facts


def backbone_facts(data: Any) -> BackboneFacts:
    """What `to_json` made of them; EngineError where it is something else."""
    return _made(
        BackboneFacts,
        data,
        codec=codec_facts,
        patch=tuple,
        tile=tuple,
        defaults=lambda values: _made(DTG, values),
        experts=tuple,
        buckets=lambda rows: tuple(_made(Bucket, row, batches=tuple) for row in rows),
    )


def codec_facts(data: Any) -> CodecFacts:
    """As `backbone_facts`."""
    return _made(CodecFacts, data)


def sr_facts(data: Any) -> SRFacts:
    """As `backbone_facts`."""
    return _made(SRFacts, data, value_range=tuple)


def _made(kind: type[T], data: Any, **readers: Callable[[Any], Any]) -> T:
    try:
        return kind(
            **{name: readers.get(name, lambda same: same)(value) for name, value in data.items()}
        )
    except (AttributeError, TypeError, ConfigError) as error:
        raise EngineError(f"{kind.__name__} of a bundle cannot be read: {error}") from error
