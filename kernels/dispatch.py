"""What an op is, and how one of its implementations is chosen.

An op is a reference in pure torch (the oracle, the CPU path and the export path at once) and any
number of faster implementations.  A choice is made by asking each one why it cannot run: the first
without a reason wins, the reference is last and always can.  An implementation that was asked for
by name and cannot run is an error with all its reasons, never a silent fallback.  Where a call is
being compiled or exported, it is the reference that is traced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

log = logging.getLogger("dtg_restore")

ENV = "DTG_KERNELS"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class KernelChoiceError(RuntimeError):
    """An implementation was asked for by name and does not exist or cannot run."""


@dataclass(frozen=True)
class Tolerance:
    """`|got - want| <= atol + rtol * |want|`, with `want` from the reference."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Case:
    """One set of inputs; `build(dtype, device)` gives the arguments of the op."""

    name: str
    build: Callable[[torch.dtype, torch.device], tuple[Any, ...]]


def _always(*_: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op, whose result is a tensor or a tuple of them.

    `load` imports what is needed and returns the function; `missing` says why this machine lacks
    it, `unsupported` (with the op's arguments) why it cannot take these inputs, `only_by_name` why
    it is passed over for them unless it is asked for.
    """

    name: str
    load: Callable[[], Callable[..., Any]]
    missing: Callable[[], Sequence[str]] = _always
    unsupported: Callable[..., Sequence[str]] = _always
    only_by_name: Callable[..., Sequence[str]] = _always

    def not_supported_reasons(self, *args: Any) -> list[str]:
        """Empty where it can run with these arguments."""
        return list(self.missing()) or list(self.unsupported(*args))

    def is_chosen(self, *args: Any) -> bool:
        """Whether it runs these arguments unless a better one does."""
        return not self.only_by_name(*args) and not self.not_supported_reasons(*args)


@dataclass(frozen=True)
class Op:
    """`implementations` are in order of preference; the reference is appended to them.

    `tolerance` has one entry for each dtype that the op takes; `cases` feed the generic test and
    the generic benchmark, the last one being of production size.  `moved_bytes`, with the op's
    arguments, are those that it has to read and write, where not all of every tensor once.
    """

    name: str
    formula: str
    reference: Callable[..., Any]
    faster: tuple[Implementation, ...]
    tolerance: Mapping[torch.dtype, Tolerance]
    cases: tuple[Case, ...] = field(repr=False)
    moved_bytes: Callable[..., int] | None = None

    @property
    def implementations(self) -> tuple[Implementation, ...]:
        return (*self.faster, Implementation("reference", lambda: self.reference))

    def get(self, name: str) -> Implementation:
        """The implementation called `name`; KernelChoiceError lists the known ones."""
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        known = ", ".join(i.name for i in self.implementations)
        raise KernelChoiceError(f"{self.name} has no implementation {name!r}: known are {known}")

    def choose(self, *args: Any, name: str | None = None) -> Implementation:
        """The implementation for these arguments.

        `name`, or else the environment variable DTG_KERNELS, asks for a certain one.
        """
        name = name or wanted_by_environment(self)
        if name is not None:
            implementation = self.get(name)
            if reasons := implementation.not_supported_reasons(*args):
                raise KernelChoiceError(f"{self.name}: {name} cannot run: {'; '.join(reasons)}")
            return implementation
        return next(i for i in self.implementations if i.is_chosen(*args))

    def __call__(self, *args: Any, name: str | None = None) -> Any:
        if name is None and torch.compiler.is_compiling():
            return self.reference(*args)  # a tracer sees the formula, and nothing of the choice
        implementation = self.choose(*args, name=name)
        _log_once(self.name, implementation.name)
        return implementation.load()(*args)

    def describe(self) -> dict[str, Any]:
        """Plain data: each implementation, and why this machine lacks it."""
        rows = [{"name": i.name, "reasons": list(i.missing())} for i in self.implementations]
        available = [row | {"available": not row["reasons"]} for row in rows]
        return {"op": self.name, "formula": self.formula, "implementations": available}


def address_reasons(
    device_type: str,
    rows: Mapping[str, Tensor | None] | None = None,
    *,
    dtypes: Sequence[torch.dtype] = FLOATS,
    **tensors: Tensor | None,
) -> list[str]:
    """Why a kernel on `device_type` cannot take these by their bare addresses (None: not given).

    `rows` are those that only have to be contiguous in the last dimension.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    given_rows = {name: tensor for name, tensor in (rows or {}).items() if tensor is not None}
    everything = given | given_rows
    special = any(type(t) not in (Tensor, Parameter) for t in everything.values())
    if torch.compiler.is_compiling() or special:
        return ["the call is being traced, or a tensor is of a special kind"]
    reasons = []
    for name, tensor in everything.items():
        if tensor.device.type != device_type:
            reasons.append(f"{name} is on {tensor.device}, not on {device_type}")
        if name in given and not tensor.is_contiguous():
            reasons.append(f"{name} is not contiguous")
        if name in given_rows and tensor.stride(-1) != 1:
            reasons.append(f"{name} is not contiguous in the last dimension")
        if tensor.dtype not in dtypes:
            known = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            reasons.append(f"{name} is {tensor.dtype}, not {known}")
        if tensor.requires_grad and torch.is_grad_enabled():
            reasons.append(f"{name} needs a gradient")
    return reasons


def wanted_by_environment(op: Op) -> str | None:
    """What DTG_KERNELS asks of `op`, if anything; what it asks of all ops is asked of those that
    have such an implementation."""
    wanted = parse_environment(os.environ.get(ENV, ""))
    of_all = wanted.get("*")
    has = any(implementation.name == of_all for implementation in op.implementations)
    return wanted.get(op.name, of_all if has else None)


@cache
def parse_environment(text: str) -> Mapping[str, str]:
    """Op to implementation; the op "*" stands for all.

    `text` is one implementation ("reference") or a list ("dtg_step=native,gaussian_noise=...").
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if len(items) == 1 and "=" not in items[0]:
        return {"*": items[0]}
    if bad := [item for item in items if item.count("=") != 1]:
        raise KernelChoiceError(f"{ENV}: {bad[0]!r} is not of the form op=implementation")
    return {op.strip(): name.strip() for op, name in (item.split("=") for item in items)}


@cache
def _log_once(op: str, implementation: str) -> None:
    log.debug("kernel %s runs as %s", op, implementation)
