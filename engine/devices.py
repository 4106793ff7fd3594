"""From the names of a device and of a precision to torch's own."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import ConfigError, EngineError, OutOfMemory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    ConfigError for a name that is no device, EngineError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"device is {name!r}: it must be auto, cpu, cuda or cuda:N")
    if name != "cpu":
        index = int(name.partition(":")[2] or 0)
        count = torch.cuda.device_count()
        if index >= count:
            raise EngineError(f"device {name} is not there: {count} CUDA devices are visible")
        return torch.device("cuda", index)
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bf16 on a GPU that has it, fp16 on one that lacks it, fp32 on a CPU.

    Products in half precision are emulated on most CPUs, at a hundredth of the speed.
    """
    if name != "auto":
        return DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def fast_products() -> list[str]:
    """Precisions below fp32 that this processor multiplies itself: of "bf16" and "int8"."""
    names = {
        "bf16": ("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
        "int8": ("_is_vnni_supported", "_is_amx_tile_supported"),
    }
    return [
        precision
        for precision, tests in names.items()
        if any(getattr(torch.cpu, test, lambda: False)() for test in tests)
    ]


@contextmanager
def named_out_of_memory(
    suggested_tile: tuple[int, int] | None = None, stage: str | None = None
) -> Iterator[None]:
    """Whatever torch, numpy or Python raise where memory runs out becomes `OutOfMemory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no memory is left"
        raise OutOfMemory(f"memory does not suffice: {reason}", suggested_tile, stage) from error


def free_memory() -> None:
    """Give the device back what was used and is kept for the next use."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """torch has a class of its own for GPUs, but not for the host."""
    is_host = "allocate memory" in str(error) or "not enough memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or is_host
