"""The compiled library `dtg_restore._C`: loaded on first use, with the reason where absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # csrc/include/dtg/storage.h

LARGE = 8 << 20  # bytes


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


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory on the CPU for a result that is about to be written.

    Of large tensors torch gives every one back to the system, which then spends more time on
    handing out its pages anew than a kernel on writing them: large pages are asked for.
    """
    out = torch.empty(shape, dtype=dtype)
    if out.nbytes >= LARGE:
        library().prefer_huge_pages(out.data_ptr(), out.nbytes)
    return out


def describe() -> dict[str, Any]:
    """Plain data: is it there, with which instruction set, or why not."""
    if reasons := missing():
        return {"available": False, "reasons": reasons}
    facts = {"simd": library().simd_level(), "openmp": library().openmp}
    return {"available": True, "reasons": [], **facts}
