"""A part of a model that is exported: a pure function of tensors, ready to be traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from ..engine.runtimes.base import TensorSpec


class OpenAxis(NamedTuple):
    """An axis whose size is left open; axes of one name are of one size.  `low` and `high` are
    inclusive, `typical` is what a compiler optimises for; all sizes are multiples of `multiple`."""

    name: str
    low: int
    typical: int
    high: int
    multiple: int = 1


@dataclass(frozen=True)
class Stage:
    """Parameters
    ----------
    name : of the component, see `engine.bundle.manifest`.
    module : its forward takes `inputs` in their order and returns a tensor, or a tuple of them.
    inputs : examples; an open axis has its typical size, which is above 1.
    outputs : names.
    open_axes : input -> axis -> what is left open.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    open_axes: Mapping[str, Mapping[int, OpenAxis]] = field(default_factory=dict)


class Artefact(NamedTuple):
    """A stage in files, relative to their folder; the first is what a runtime opens."""

    files: tuple[str, ...]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    onnx_sha256: str | None
