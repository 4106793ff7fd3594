from __future__ import annotations

import pytest
import torch

from dtg_restore.engine.devices import named_out_of_memory, resolve_device, resolve_dtype
from dtg_restore.engine.errors import ConfigError, EngineError, OutOfMemory


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_with_gpus(two_gpus: None) -> None:
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(EngineError, match=r"cuda:2 is not there: 2 CUDA"):
        resolve_device("cuda:2")


def test_without_a_gpu(no_gpu: None) -> None:
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(EngineError, match="0 CUDA devices"):
            resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:x", "cuda:-1", "cuda:", "mps", "meta"])
def test_no_device(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'"):
        resolve_device(name)


def test_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("bf16", cpu) == torch.bfloat16
    for has_bf16, want in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_bf16=has_bf16: has_bf16)
        assert resolve_dtype("auto", gpu) == want
        assert resolve_dtype("fp32", gpu) == torch.float32


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_out_of_memory_by_any_name(error: Exception) -> None:
    with pytest.raises(OutOfMemory) as caught, named_out_of_memory((48, 48)):
        raise error
    assert caught.value.suggested_tile == (48, 48)
    assert caught.value.__cause__ is error


def test_the_real_allocator_is_understood() -> None:
    with pytest.raises(OutOfMemory), named_out_of_memory():
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_and_the_inner_suggestion_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), named_out_of_memory((48, 48)):
        raise RuntimeError("mat1 and mat2 have the wrong shape")
    with pytest.raises(OutOfMemory) as caught, named_out_of_memory():
        raise OutOfMemory("inside", (32, 32))
    assert caught.value.suggested_tile == (32, 32)
