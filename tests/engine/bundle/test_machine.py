"""What bundles need and machines have, on machines that are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.bundle import machine as module
from dtg_restore.engine.bundle.machine import Machine, misfits, needs_of, this_machine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HERE = Machine(
    system="Linux",
    arch="x86_64",
    isa=frozenset({"avx2", "avx512f", "avx512_bf16"}),
    libraries={"torch": "2.13.0+cpu", "onnxruntime": "1.23.2", "tensorrt": "10.13.3.9"},
)
GPU = replace(HERE, compute_capability="9.0", cuda_driver="13.1")


def check(needs: dict[str, Any], machine: Machine, *fields: str) -> list[str]:
    found = misfits(json.loads(json.dumps(needs)), machine)
    assert [line.partition(":")[0] for line in found] == list(fields)
    return found


@pytest.mark.parametrize("runtime", ["onnx", "ort", "aot", "tensorrt"])
def test_a_bundle_fits_the_machine_it_was_built_on(runtime: str) -> None:
    for machine, device in ((HERE, CPU), (GPU, CUDA)):
        needs = needs_of(runtime, device, machine=machine)
        assert needs
        check(needs, machine)


def test_machine_code_needs_the_same_processor_and_torch() -> None:
    needs = needs_of("aot", CPU, machine=HERE)
    (line,) = check(needs, replace(HERE, isa=HERE.isa - {"avx512_bf16"}), "isa")
    assert line == "isa: the bundle needs avx512_bf16, this processor has not"
    check(needs, replace(HERE, isa=HERE.isa | {"amx_tile"}))
    check(needs, replace(HERE, system="Windows", arch="arm64"), "system", "arch")
    (line,) = check(needs, replace(HERE, libraries={"torch": "2.12.1"}), "torch")
    assert line == "torch: the bundle needs 2.13.0, here is 2.12.1"
    check(needs, replace(HERE, libraries={"torch": "2.13.0+cu130"}))


def test_onnx_runs_on_any_processor_unless_it_was_optimised_for_one() -> None:
    other = Machine("Darwin", "arm64", frozenset(), {"onnxruntime": "1.30.0"})
    check(needs_of("ort", CPU, machine=HERE), other)
    native = needs_of("ort", CPU, is_native=True, machine=HERE)
    check(native, other, "system", "arch", "isa")
    check(native, replace(HERE, libraries={"onnxruntime": "1.23.1"}), "onnxruntime")


def test_a_newer_opset_needs_a_newer_runtime() -> None:
    old = replace(HERE, libraries={"onnxruntime": "1.18.1"})
    check(needs_of("onnx", CPU, opset=20, machine=old), old)
    (line,) = check(needs_of("onnx", CPU, opset=23, machine=old), old, "onnxruntime")
    assert line == "onnxruntime: the bundle needs >=1.22, here is 1.18.1"
    (line,) = check(needs_of("onnx", CPU, machine=old), replace(old, libraries={}), "onnxruntime")
    assert line == "onnxruntime: the bundle needs >=1.18, is not installed"


def test_engines_of_tensorrt_are_of_one_version_and_one_gpu() -> None:
    newer = replace(GPU, libraries={"tensorrt": "10.14.1"}, compute_capability="10.0")
    check(needs_of("tensorrt", CUDA, machine=GPU), newer, "tensorrt", "compute_capability")
    needs = needs_of(
        "tensorrt", CUDA, is_version_compatible=True, is_hardware_compatible=True, machine=GPU
    )
    check(needs, newer)
    check(needs, replace(newer, compute_capability="7.5"), "compute_capability")
    check(needs, replace(newer, libraries={"tensorrt": "10.9.0"}), "tensorrt")
    check(needs, replace(newer, libraries={"tensorrt": "11.4.0"}), "tensorrt")
    (line, _) = check(needs, HERE, "compute_capability", "cuda_driver")
    assert line == "compute_capability: the bundle needs >=8.0, there is no CUDA device"


def test_a_driver_of_an_older_major_version_does_not_serve() -> None:
    needs = needs_of("aot", CUDA, machine=GPU)
    check(needs, replace(GPU, cuda_driver="13.0"))
    check(needs, replace(GPU, cuda_driver="12.9"), "cuda_driver")


def test_what_is_not_known_does_not_fit() -> None:
    (line,) = check({"quantum": 4}, HERE, "quantum")
    assert "needs 4" in line and "does not know" in line


def test_this_machine_is_described_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "is_available", refuse)
    needs = needs_of("aot", CPU)
    assert misfits(needs) == []
    assert needs["torch"] == torch.__version__.partition("+")[0]
    assert "libraries" not in needs and "onnxruntime" not in needs


def test_libraries_are_imported_only_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "_version", lambda name: asked.append(name) or "1.20.0")
    assert misfits({"onnxruntime": ">=1.18"}) == []
    assert asked == ["onnxruntime"]


def test_extensions_are_read_on_any_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu aes avx2 avx512_bf16 sha_ni\nflags\t: other\n")
    monkeypatch.setattr(module, "CPUINFO", file)
    assert this_machine(CPU, ()).isa == {"avx2", "avx512_bf16"}
    file.write_text("processor : 0\nFeatures : fp asimd aes sve\n")
    assert this_machine(CPU, ()).isa == {"asimd", "sve"}
    file.unlink()  # as on macOS and Windows
    assert isinstance(this_machine(CPU, ()).isa, frozenset)
