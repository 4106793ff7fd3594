"""ONNX Runtime: graphs as ONNX files, on a CPU or a GPU.

Tensors are bound where torch has them: nothing is copied on the way in or out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import cache_folder
from ..errors import EngineError
from .base import Component
from .tensors import checked, new_outputs

# Numbers of element types in ONNX; numpy, by which they could be named too, has no bfloat16.
ELEMENTS = {
    **{torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int32: 6, torch.int64: 7},
    **{torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16},
    torch.float8_e4m3fn: 17,
}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
PACKAGES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu, with the libraries of TensorRT",
}


class OrtEngine:
    """A component in a session of its own."""

    def __init__(self, path: Path, component: Component, device: torch.device, provider: str):
        self.device, self.inputs, self.outputs = device, component.inputs, component.outputs
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._place = (device.type, device.index or 0)
        options = session_options(provider)
        providers = provider_options(provider, component, device, self._stream)
        self._session = open_session(path, options, providers)
        self._run = _run_options(device)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given, sizes = checked(inputs, self.inputs, self.device)
        results = new_outputs(self.outputs, sizes, self.device)
        binding = self._session.io_binding()
        for name, tensor in given.items():
            binding.bind_input(name, *self._place, *_memory(tensor))
        for name, tensor in results.items():
            binding.bind_output(name, *self._place, *_memory(tensor))
        self._execute(binding)
        return results

    def _execute(self, binding: Any) -> None:
        if self._stream is None:
            self._session.run_with_iobinding(binding, self._run)
            return
        # A session keeps the stream that it was opened with; that of the caller may be another.
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        self._session.run_with_iobinding(binding, self._run)
        here.wait_stream(self._stream)


def _memory(tensor: Tensor) -> tuple[int, list[int], int]:
    return ELEMENTS[tensor.dtype], list(tensor.shape), tensor.data_ptr()


def open_engine(
    path: Path, component: Component, device: torch.device, provider: str | None = None
) -> OrtEngine:
    """The graph in the file `path`.

    `provider` is "cpu", "cuda" or "tensorrt"; None is that of the device.  EngineError where ONNX
    Runtime has it not, or cannot read the file.
    """
    return OrtEngine(path, component, device, provider or device.type)


def open_with_tensorrt(path: Path, component: Component, device: torch.device) -> OrtEngine:
    """As `open_engine`, executed by TensorRT inside ONNX Runtime.

    TensorRT compiles the graph when it is opened first, which takes minutes; the user's cache keeps
    what was compiled.
    """
    return open_engine(path, component, device, "tensorrt")


def reasons(provider: str) -> list[str]:
    """Why the provider cannot be used; none where it can."""
    try:
        import onnxruntime
    except ImportError:
        return [f"{PACKAGES[provider]} is not installed: pip install 'dtg-restore[onnx]'"]
    if PROVIDERS[provider] in onnxruntime.get_available_providers():
        return []
    return [
        f"this ONNX Runtime ({onnxruntime.__version__}) has no {PROVIDERS[provider]}: install "
        + PACKAGES[provider]
    ]


def session_options(provider: str) -> Any:
    """Settings of a session; EngineError where it cannot have the provider."""
    if missing := reasons(provider):
        raise EngineError("; ".join(missing))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would wait for the next call at full speed, on the cores that torch then needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return options


def open_session(path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
    """EngineError where the file cannot be read, or the first provider does not start."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its classes of errors have no base of their own
        raise EngineError(f"ONNX Runtime cannot open {path}: {error}") from error
    wanted = providers[0][0]
    if wanted not in session.get_providers():  # it falls back to others without a word
        raise EngineError(
            f"ONNX Runtime could not start its {wanted}: do the versions of CUDA, cuDNN and "
            "TensorRT fit?"
        )
    return session


def provider_options(
    provider: str, component: Component, device: torch.device, stream: Any
) -> list[tuple[str, dict[str, str]]]:
    """The provider, and those that take what it does not; EngineError where it is of another kind
    of device."""
    if (provider == "cpu") != (device.type == "cpu"):
        raise EngineError(f"the provider {provider} of ONNX Runtime does not compute on {device}")
    plain: tuple[str, dict[str, str]] = (PROVIDERS["cpu"], {})
    if provider == "cpu":
        return [plain]
    common = {
        "device_id": str(device.index or 0),
        "user_compute_stream": str(stream.cuda_stream),
        "has_user_compute_stream": "1",
    }
    # Convolutions by what is known to be fast; the default tries all of them at the first call.
    cuda = (PROVIDERS["cuda"], {**common, "cudnn_conv_algo_search": "HEURISTIC"})
    if provider == "cuda":
        return [cuda, plain]
    return [(PROVIDERS["tensorrt"], common | _tensorrt_options(component)), cuda, plain]


def _tensorrt_options(component: Component) -> dict[str, str]:
    folder = cache_folder("engines") / "onnxruntime"
    folder.mkdir(parents=True, exist_ok=True)
    types = {spec.dtype for spec in (*component.inputs.values(), *component.outputs.values())}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": str(int("float16" in types)),
        "trt_bf16_enable": str(int("bfloat16" in types)),
    }


def _run_options(device: torch.device) -> Any:
    """Calls on a GPU return when their work is queued, as torch's do."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    if device.type == "cuda":
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options
