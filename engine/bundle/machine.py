"""What a machine must have to execute a bundle, and what of it a machine lacks.

Needs are plain JSON.  A version is exact ("10.13.3"), or the lowest that serves and the first that
does not (">=8.0", ">=10.3,<11"):

    system, arch        of the operating system and the processor, where machine code was compiled
    isa                 what that code may use of the processor
    torch, onnxruntime, tensorrt        versions of the libraries
    compute_capability, cuda_driver     of the GPU, and the CUDA version that its driver serves
"""

from __future__ import annotations

import operator
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "onnxruntime", "tensorrt")
GPU = ("compute_capability", "cuda_driver")
# How the names of those extensions begin that a compiler uses unasked, on x86 and on Arm; without
# the others, such as those for ciphers, its code runs as well.
USED = (
    *("sse3", "ssse3", "sse4_", "avx", "amx", "fma", "f16c", "bmi", "abm", "movbe", "popcnt"),
    *("gfni", "asimd", "sve", "bf16", "i8mm", "fphp", "fcma", "atomics"),
)
CPUINFO = Path("/proc/cpuinfo")
# The first versions of ONNX Runtime that read an opset, and the files of torch's exporter.
ONNXRUNTIME = {20: "1.18", 21: "1.18", 22: "1.21", 23: "1.22"}
AMPERE = "8.0"


@dataclass(frozen=True)
class Machine:
    """Parameters
    ----------
    isa : extensions of the processor's instruction set that compilers use, by the names that Linux
        has for them, such as "avx512_bf16".
    libraries : versions by name, of those of `LIBRARIES` that are installed.
    compute_capability, cuda_driver : None where there is no such device.
    """

    system: str
    arch: str
    isa: frozenset[str]
    libraries: Mapping[str, str]
    compute_capability: str | None = None
    cuda_driver: str | None = None


def this_machine(device: torch.device, libraries: tuple[str, ...] = LIBRARIES) -> Machine:
    """Only `libraries` are imported, and CUDA is asked only where `device` is of it."""
    found = {name: _version(name) for name in libraries}
    is_cuda = device.type == "cuda"
    return Machine(
        system=platform.system(),
        arch=platform.machine().lower().replace("amd64", "x86_64"),
        isa=frozenset(name for name in _extensions() if name.startswith(USED)),
        libraries={name: version for name, version in found.items() if version},
        compute_capability=_capability(device) if is_cuda else None,
        cuda_driver=_cuda_driver() if is_cuda else None,
    )


def needs_of(
    runtime: str,
    device: torch.device,
    *,
    opset: int = 20,
    is_native: bool = False,
    is_version_compatible: bool = False,
    is_hardware_compatible: bool = False,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """What a bundle that is built on this machine needs, as plain JSON.

    Parameters
    ----------
    runtime : "onnx", "ort", "aot" or "tensorrt".
    device : that the bundle is for.
    opset : of its ONNX graphs.
    is_native : ONNX Runtime saved its graph as it had optimised it for this processor.
    is_version_compatible, is_hardware_compatible : TensorRT was asked for an engine that newer
        versions of its major version execute, and GPUs from Ampere on.
    machine : another one than this.
    """
    if runtime in ("onnx", "ort"):
        machine = machine or this_machine(device, ("onnxruntime",))
        if not is_native:
            return {"onnxruntime": f">={ONNXRUNTIME[opset]}"}
        oldest = f">={_release(machine.libraries['onnxruntime'])}"
        return _code(machine) | {"onnxruntime": oldest}
    if runtime == "aot":
        machine = machine or this_machine(device, ("torch",))
        torch_version = {"torch": _release(machine.libraries["torch"])}
        return _code(machine) | torch_version | _gpu(machine)
    assert runtime == "tensorrt", runtime
    machine = machine or this_machine(device, ("tensorrt",))
    version = machine.libraries["tensorrt"]
    major = _numbers(version)[0]
    return {
        "system": machine.system,
        "arch": machine.arch,
        "tensorrt": f">={version},<{major + 1}" if is_version_compatible else version,
        **_gpu(machine, AMPERE if is_hardware_compatible else None),
    }


def misfits(needs: Mapping[str, Any], machine: Machine | None = None) -> list[str]:
    """What of `needs` this machine, or `machine`, has not: a sentence each, which begins with the
    name of the field.  A field that is not known is a misfit."""
    if machine is None:
        device = torch.device("cuda" if any(name in needs for name in GPU) else "cpu")
        machine = this_machine(device, tuple(name for name in LIBRARIES if name in needs))
    return [
        f"{field}: {reason}"
        for field, needed in needs.items()
        if (reason := CHECKS.get(field, _unknown)(needed, field, machine))
    ]


def _same(needed: str, field: str, machine: Machine) -> str | None:
    here = getattr(machine, field)
    return None if here == needed else f"the bundle is for {needed}, this is {here}"


def _has_isa(needed: list[str], _: str, machine: Machine) -> str | None:
    absent = [name for name in needed if name not in machine.isa]
    return f"the bundle needs {', '.join(absent)}, this processor has not" if absent else None


def _has_library(needed: str, field: str, machine: Machine) -> str | None:
    return _version_misfit(needed, machine.libraries.get(field), "is not installed")


def _has_gpu(needed: str, field: str, machine: Machine) -> str | None:
    return _version_misfit(needed, getattr(machine, field), "there is no CUDA device")


def _unknown(needed: Any, _field: str, _machine: Machine) -> str:
    return f"the bundle needs {needed}, which this version of dtg-restore does not know"


CHECKS: dict[str, Callable[[Any, str, Machine], str | None]] = {
    **dict.fromkeys(("system", "arch"), _same),
    "isa": _has_isa,
    **dict.fromkeys(LIBRARIES, _has_library),
    **dict.fromkeys(GPU, _has_gpu),
}


def _version_misfit(needed: str, here: str | None, absent: str) -> str | None:
    if here is None:
        return f"the bundle needs {needed}, {absent}"
    fits = all(_holds(part, here) for part in needed.split(","))
    return None if fits else f"the bundle needs {needed}, here is {here}"


def _holds(constraint: str, version: str) -> bool:
    compare = {">=": operator.ge, "<": operator.lt}.get(sign := constraint.rstrip(".0123456789"))
    return (compare or operator.eq)(_numbers(version), _numbers(constraint.removeprefix(sign)))


def _numbers(version: str) -> list[int]:
    """ "2.13.0+cpu" as [2, 13, 0, 0]."""
    numbers = [int(number) for number in re.findall(r"\d+", _release(version))][:4]
    return numbers + [0] * (4 - len(numbers))


def _release(version: str) -> str:
    return version.partition("+")[0]


def _code(machine: Machine) -> dict[str, Any]:
    """What machine code needs that was compiled for the processor it was compiled on."""
    return {"system": machine.system, "arch": machine.arch, "isa": sorted(machine.isa)}


def _gpu(machine: Machine, lowest: str | None = None) -> dict[str, str]:
    if machine.compute_capability is None:
        return {}
    needs = {"compute_capability": f">={lowest}" if lowest else machine.compute_capability}
    if machine.cuda_driver is not None:  # of one major version all drivers serve all libraries
        needs["cuda_driver"] = f">={machine.cuda_driver.partition('.')[0]}.0"
    return needs


def _extensions() -> Iterable[str]:
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
    except OSError:  # no Linux: torch's names, which some versions have
        names: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return [name for name, has in names.items() if has is True]
    return found[1].split() if found else []


def _version(library: str) -> str | None:
    try:
        return str(import_module(library).__version__)
    except ImportError:
        return None


def _capability(device: torch.device) -> str | None:
    if not torch.cuda.is_available():
        return None
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


def _cuda_driver() -> str | None:
    """The CUDA version that the driver serves, which may be above that of torch."""
    if not torch.cuda.is_available():
        return None
    number = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined]  # 13010 is 13.1
    return f"{number // 1000}.{number % 1000 // 10}"
