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
