"""Weights of a codec in one file: safetensors, or tensors that torch has pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from ..errors import EngineError
from ..shards import Shards, open_shards

PICKLED = (".pth", ".pt")
FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Pickled(Shards):
    """A state dict that was loaded whole: such files are small."""

    state: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.state.items()


def open_weights(source: Path) -> Shards:
    """What `open_shards` takes, or a state dict in a .pth file, of which only tensors are read."""
    if source.suffix not in PICKLED:
        return open_shards(source)
    if not source.is_file():
        raise EngineError(f"no weights at {source}")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=is_zipfile(source))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(f"{source} is cut short or no file of tensors: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise EngineError(f"{source} holds no state dict: names and tensors are expected")
    for key, tensor in state.items():
        if tensor.dtype not in FLOATS:
            raise EngineError(
                f"{key} in {source} is {tensor.dtype}: quantised weights are not read, take the "
                "bf16, fp16 or fp32 ones"
            )
    return Pickled(source, {source: {key: tuple(t.shape) for key, t in state.items()}}, state)
