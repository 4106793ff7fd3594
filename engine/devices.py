"""From the names of a device and of a precision to torch's own."""

from __future__ import annotations

import torch

from .errors import ConfigError, EngineError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    ConfigError for a name that is no device, EngineError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise ConfigError(f"device is {name!r}: it must be auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise EngineError(f"device {name} is not there: {count} CUDA devices are visible")
        return torch.device("cuda", int(index or 0))
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
