"""What a compiled part of a model is to the rest of the engine, whatever executes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # manifests are read without torch
    import torch
    from torch import Tensor


class TensorSpec(NamedTuple):
    """Shape and type of an input or an output.

    `shape` has a name where an axis is open; axes of one name are of one size.  `dtype` is torch's
    name of the type, such as "float32".
    """

    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Component:
    """One compiled function: `files` are relative to their folder, the first is what is opened.

    `onnx_sha256` is of the graph that it was compiled from, without weights that lie beside it;
    None where there was none.
    """

    files: tuple[str, ...]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    onnx_sha256: str | None = None


class Engine(Protocol):
    """A pure function of tensors that was compiled ahead of time.

    Calls of one engine are made one after the other, on the caller's stream.
    """

    device: torch.device
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, in memory that the caller owns: the next call does not touch it.

        Inputs lie on `device`, in any memory order, and are not written to.  ConfigError for a
        missing or unknown name, another type, or a shape that it was not compiled for.
        """
        ...
