"""AOTInductor: networks that torch compiled into a library, for a CPU or a GPU.

A package is opened without tracing or compiling anything.  It looks at nothing that it is given:
an input of another shape, or laid out in another order, is computed with as if it were of its own,
so `checked` comes before every call.  What it gives back can be part of an input, or of another
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EngineError
from .base import Component
from .tensors import checked


class AotEngine:
    """A component in a package, which has one set of weights and of memory."""

    def __init__(self, path: Path, component: Component, device: torch.device):
        self.device, self.inputs, self.outputs = device, component.inputs, component.outputs
        self._package = _load(path, device)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given, _ = checked(inputs, self.inputs, self.device)
        results = self._package.run(list(given.values()))
        return dict(zip(self.outputs, _owned(results, given.values()), strict=True))


def _owned(results: Iterable[Tensor], inputs: Iterable[Tensor]) -> list[Tensor]:
    """The results, each in memory that is of no input and of no other result, in order."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    owned = []
    for result in results:
        kept = result.contiguous()
        if kept.untyped_storage().data_ptr() in taken:
            kept = result.clone(memory_format=torch.contiguous_format)
        taken.add(kept.untyped_storage().data_ptr())
        owned.append(kept)
    return owned


def open_engine(path: Path, component: Component, device: torch.device) -> AotEngine:
    """The package in the file `path`; EngineError where torch cannot open it."""
    return AotEngine(path, component, device)


def reasons() -> list[str]:
    """Why packages cannot be opened; none where they can."""
    return [] if _loader() else [f"this torch ({torch.__version__}) opens no packages"]


def _loader() -> Any:
    # Beneath `torch._inductor.aoti_load_package`, which loads the compiler, for seconds.
    return getattr(getattr(torch._C, "_aoti", None), "AOTIModelPackageLoader", None)


def _load(path: Path, device: torch.device) -> Any:
    if missing := reasons():
        raise EngineError("; ".join(missing))
    name, is_single_threaded, num_runners = "model", False, 1
    index = -1 if device.type == "cpu" else device.index or 0
    try:
        return _loader()(str(path), name, is_single_threaded, num_runners, index)
    except RuntimeError as error:
        raise EngineError(f"torch cannot open {path}: {error}") from error
