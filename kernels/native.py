"""The compiled library `dtg_restore._C`: loaded on first use, with the reason where absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # csrc/include/dtg/storage.h

CAPABILITY = (8, 0)  # the least that CMakeLists.txt builds for
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


def cuda_missing() -> list[str]:
    """Why the CUDA kernels of the library cannot be used on this machine; empty where they can."""
    if reasons := missing():
        return reasons
    if reason := library().cuda_missing:
        return [f"the native library was {reason}"]
    if torch.version.cuda is None or not torch.cuda.is_available():
        return ["there is no CUDA device"]
    return []


def cuda_device_reasons(device: torch.device) -> list[str]:
    """Why the CUDA kernels cannot run on `device`, a GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < CAPABILITY:
        least = ".".join(map(str, CAPABILITY))
        return [f"{device} has compute capability {major}.{minor}, less than {least}"]
    return []


@contextmanager
def cuda_stream(device: torch.device) -> Iterator[int]:
    """`device` as the current one, and the address of its current stream."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream().cuda_stream


def describe() -> dict[str, Any]:
    """Plain data: is it there, with which instruction set and kernels for GPUs, or why not."""
    cuda = {"available": not cuda_missing(), "reasons": cuda_missing()}
    if reasons := missing():
        return {"available": False, "reasons": reasons, "cuda": cuda}
    facts = {"simd": library().simd_level(), "openmp": library().openmp}
    return {"available": True, "reasons": [], "cuda": cuda, **facts}
