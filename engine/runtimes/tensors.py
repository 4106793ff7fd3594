"""The tensors of a call, as every engine checks and makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import Tensor

from ..errors import ConfigError
from .base import TensorSpec

Sizes = dict[str, int]  # of the open axes of a call, by name


def checked(
    inputs: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], device: torch.device
) -> tuple[dict[str, Tensor], Sizes]:
    """The inputs in the order of `specs`, rows one after the other, and the sizes of open axes.

    A tensor that lies so already is taken as it is.  ConfigError for a missing or unknown name, and
    for a tensor of another type, device or shape; axes of one name are of one size.
    """
    if inputs.keys() != specs.keys():
        raise ConfigError(
            f"the inputs are {', '.join(specs)}, not {', '.join(inputs) or 'none at all'}"
        )
    sizes: Sizes = {}
    laid = {}
    for name, spec in specs.items():
        tensor = inputs[name]
        if tensor.device != device:
            raise ConfigError(f"input {name} lies on {tensor.device}, and the engine on {device}")
        if tensor.dtype != dtype_of(spec):
            raise ConfigError(f"input {name} is of {tensor.dtype}, and must be of {spec.dtype}")
        _match(name, tensor, spec, sizes)
        laid[name] = tensor.contiguous()
    return laid, sizes


def _match(name: str, tensor: Tensor, spec: TensorSpec, sizes: Sizes) -> None:
    if tensor.ndim != len(spec.shape):
        _refuse(name, tensor, spec)
    for size, axis in zip(tensor.shape, spec.shape, strict=True):
        if size != (axis if isinstance(axis, int) else sizes.setdefault(axis, size)):
            _refuse(name, tensor, spec)


def _refuse(name: str, tensor: Tensor, spec: TensorSpec) -> NoReturn:
    raise ConfigError(f"input {name} is {written(tuple(tensor.shape))}, not {written(spec.shape)}")


def written(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def dtype_of(spec: TensorSpec) -> torch.dtype:
    found: torch.dtype = getattr(torch, spec.dtype)
    return found


def shape_of(spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """With sizes in the places of names; "2*height" is twice what "height" is."""
    return tuple(axis if isinstance(axis, int) else _size(axis, sizes) for axis in spec.shape)


def _size(axis: str, sizes: Sizes) -> int:
    factor, _, name = axis.rpartition("*")
    return int(factor or 1) * sizes[name]


def new_outputs(
    specs: Mapping[str, TensorSpec], sizes: Sizes, device: torch.device
) -> dict[str, Tensor]:
    """Memory for the results of one call."""
    return {
        name: torch.empty(shape_of(spec, sizes), dtype=dtype_of(spec), device=device)
        for name, spec in specs.items()
    }
