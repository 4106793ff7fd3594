"""The compiled library `dtg_restore._C`: loaded on first use, with the reason where absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # csrc/include/dtg/dtg_step.h


@cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        return import_module(".._C", __package__), ""
    except ModuleNotFoundError:
        record = Path(__file__).parents[1] / "_C.txt"  # setup.py writes it where a build fails
        if record.is_file():
            return None, record.read_text().strip()
        return None, "the native library was never built: install the package with a C++ compiler"
    except ImportError as error:
        return None, f"the native library does not load: {error}"


def library() -> ModuleType:
    """The library; only to be called where `missing()` is empty."""
    module, reason = _load()
    if module is None:
        raise RuntimeError(reason)
    return module


def missing() -> list[str]:
    """Why the library cannot be used on this machine; empty where it can."""
    module, reason = _load()
    return [] if module is not None else [reason]


def describe() -> dict[str, Any]:
    """Plain data: is it there, with which instruction set, or why not."""
    if reasons := missing():
        return {"available": False, "reasons": reasons}
    facts = {"simd": library().simd_level(), "openmp": library().openmp}
    return {"available": True, "reasons": [], **facts}


def tensor_reasons(tensors: dict[str, Tensor]) -> list[str]:
    """Why these cannot be handed over as bare addresses."""
    if torch.compiler.is_compiling() or any(type(t) is not Tensor for t in tensors.values()):
        return ["the call is being traced, or a tensor is of a special kind"]
    reasons = []
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            reasons.append(f"{name} is on {tensor.device}, not on the CPU")
        if not tensor.is_contiguous():
            reasons.append(f"{name} is not contiguous")
        if tensor.dtype not in DTYPE_CODES:
            reasons.append(f"{name} is {tensor.dtype}, not float32, bfloat16 or float16")
        if tensor.requires_grad and torch.is_grad_enabled():
            reasons.append(f"{name} needs a gradient")
    return reasons
