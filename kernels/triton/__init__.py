"""The Triton kernels, one file an op.  Those files import triton; this one must not."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module

import torch


def interpreted() -> bool:
    """Triton runs its kernels through numpy on CPU tensors: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing() -> list[str]:
    """Why Triton cannot be used on this machine; empty where it can."""
    if reason := _import_error():
        return [reason]
    if interpreted() or torch.cuda.is_available():
        return []
    return ["triton needs a CUDA device, and there is none"]


@cache
def _import_error() -> str:
    try:
        import_module("triton")
    except ModuleNotFoundError:
        return "triton is not installed"
    except ImportError as error:
        return f"triton does not load: {error}"
    return ""


def device_type() -> str:
    """The kind of device whose tensors the kernels take."""
    return "cpu" if interpreted() else "cuda"


def row_tile(rows: int, dim: int) -> dict[str, int]:
    """The launch of a kernel over rows of `dim` values: one program has whole rows.

    A row of production width fills a program; narrow ones share one, and in the interpreter, where
    a program costs milliseconds, eight programs do all.
    """
    width = _power_of_2(dim)
    together = _power_of_2(-(-rows // 8)) if interpreted() else max(1, 1024 // width)
    warps = min(16, max(4, together * width // 512))
    return {"BLOCK_ROWS": together, "BLOCK_D": width, "num_warps": warps}


def picture_tile(height: int, width: int) -> dict[str, int]:
    """The launch of a kernel over pixels: one program has about a thousand, side by side where the
    picture is wide enough; in the interpreter, some hundred thousands."""
    columns = min(_power_of_2(width), 2048 if interpreted() else 1024)
    rows = min(_power_of_2(height), 256) if interpreted() else max(1, 1024 // columns)
    return {"BLOCK_H": rows, "BLOCK_W": max(columns, 2), "num_warps": 8}


def _power_of_2(least: int) -> int:
    return 1 << (max(least, 1) - 1).bit_length()
