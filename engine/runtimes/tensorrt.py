"""TensorRT: plans, executed on the caller's stream.

Nothing here waits for the device, and nothing is allocated by the library during a call, so that a
call can be recorded in a CUDA graph: results and the scratch memory of a pass come from torch's
allocator, which hands memory on in the order of the stream.  So results are the caller's own at
every call, which costs a context nothing but being told another address, and engines of several
shapes share their scratch memory, as layers of torch do.

Written against the interfaces of TensorRT 10 (from 10.3 on) and 11.
"""

from __future__ import annotations

import logging
import mmap
from collections import deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, EngineError
from .base import Component, TensorSpec
from .tensors import checked, new_outputs, written

logger = logging.getLogger("dtg_restore.tensorrt")

OLDEST = (10, 3)  # version
ALIGNMENT = 256  # bytes, of every address that a context is given
NAMES = {  # of types, in TensorRT and in torch
    **{"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8_e4m3fn"},
    **{"INT64": "int64", "INT32": "int32", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool"},
}


def open_engine(path: Path, component: Component, device: torch.device) -> TensorRTEngine:
    """The plan in the file `path`, which was made for the GPU `device`.

    A plan without weights has the graph that it was made from beside it, as the second file of the
    component, and is given the weights of that one.  EngineError where TensorRT is not installed or
    too old, or the file is no plan, or one for another version, GPU or component.
    """
    with torch.cuda.device(device):
        engine = read_plan(path)
        if differences := _differences(engine, component):
            raise EngineError(f"{path} is not what the bundle says: {'; '.join(differences)}")
        if len(component.files) > 1:
            refit_plan(engine, path.with_name(component.files[1]))
        return TensorRTEngine(engine, component, device)


class TensorRTEngine:
    """A plan with one context, which has one profile.

    `streams_weights` says that weights come from the host during a pass, as they do not fit on the
    device.  Such a pass waits for the device; recording it is a RuntimeError, as for torch's own
    operators that wait.
    """

    def __init__(self, engine: Any, component: Component, device: torch.device):
        self.device, self.inputs, self.outputs = device, component.inputs, component.outputs
        self.streams_weights = _place_weights(engine)
        strategy = library().ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise failure("TensorRT cannot prepare the plan")
        self._engine, self._context = engine, context
        self._ranges = {n: _range(engine, n) for n, spec in self.inputs.items() if _is_open(spec)}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of open inputs, as the context knows them
        self._addresses: dict[str, int] = {}  # likewise
        self._scratch = engine.device_memory_size_v2
        self._aside = torch.cuda.Stream(device)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.streams_weights and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("weights that come from the host cannot be recorded")
        given, sizes = checked(inputs, self.inputs, self.device)
        given = {name: _aligned(tensor) for name, tensor in given.items()}
        with torch.cuda.device(self.device):
            self._set_shapes(given)
            results = new_outputs(self.outputs, sizes, self.device)
            for name, tensor in (given | results).items():
                self._bind(name, tensor)
            # Held until the pass is queued: whoever gets it next comes later in the stream.
            scratch = torch.empty(self._scratch, dtype=torch.uint8, device=self.device)
            self._context.set_device_memory(scratch.data_ptr(), self._scratch)
            self._execute()
        return results

    def _set_shapes(self, given: Mapping[str, Tensor]) -> None:
        shapes = {name: tuple(given[name].shape) for name in self._ranges}
        if shapes == self._shapes:
            return
        for name, shape in shapes.items():
            low, high = self._ranges[name]
            if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
                raise ConfigError(
                    f"input {name} is {written(shape)}, and the engine was made for "
                    f"{written(low)} to {written(high)}"
                )
        self._shapes = {}  # until all are known
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise failure(f"TensorRT refuses input {name} of {written(shape)}")
        self._scratch = self._context.update_device_memory_size_for_shapes()
        self._shapes = shapes

    def _bind(self, name: str, tensor: Tensor) -> None:
        address = tensor.data_ptr()
        if self._addresses.get(name) == address:
            return
        if not self._context.set_tensor_address(name, address):
            raise failure(f"TensorRT refuses the memory of {name}")
        self._addresses[name] = address

    def _execute(self) -> None:
        """On torch's own stream the library would wait for the device: that takes another one."""
        here = torch.cuda.current_stream(self.device)
        is_default = here == torch.cuda.default_stream(self.device)
        stream = self._aside if is_default else here
        if is_default:
            stream.wait_stream(here)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise failure("TensorRT cannot execute the plan")
        if is_default:
            here.wait_stream(stream)


def reasons() -> list[str]:
    """Why TensorRT cannot be used; none where it can."""
    try:
        import tensorrt
    except ImportError as error:  # the package, or a library that it loads
        return [f"TensorRT is not installed ({error}): pip install 'dtg-restore[trt]'"]
    if version_of(tensorrt) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [f"TensorRT is {tensorrt.__version__}, and {oldest} is the oldest that is known"]
    return []


def library() -> Any:
    if missing := reasons():
        raise EngineError("; ".join(missing))
    import tensorrt

    return tensorrt


def version_of(trt: Any) -> tuple[int, int]:
    major, minor, *_ = trt.__version__.split(".")
    return int(major), int(minor)


@cache
def bridge() -> Any:
    """The logger that all objects of TensorRT share; it outlives them.

    The library says why something failed nowhere else: `failure` has the last errors.
    """
    trt = library()
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,  # about choices of its own, by the dozen
        trt.ILogger.INFO: logging.DEBUG,
    }

    base: Any = trt.ILogger

    class Bridge(base):
        def __init__(self) -> None:
            base.__init__(self)  # the library asks for this form
            self.errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity)
            if level == logging.ERROR:
                self.errors.append(msg.strip())
                level = logging.DEBUG  # it is raised
            if level is not None:
                logger.log(level, "%s", msg.strip())

    return Bridge()


def failure(what: str) -> EngineError:
    """The error, with what the library has said since the last one."""
    said = list(dict.fromkeys(bridge().errors))
    bridge().errors.clear()
    return EngineError(": ".join([what, "; ".join(said)] if said else [what]))


def read_plan(path: Path) -> Any:
    """The plan, ready for contexts.

    The file is mapped: the system holds as much of it as there is room for, and no copy is made.
    A plan is code, to be trusted as a program is; one for later versions of TensorRT has code for
    the processor, too.
    """
    trt = library()
    bridge().errors.clear()
    runtime = trt.Runtime(bridge())
    runtime.engine_host_code_allowed = True
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            engine = runtime.deserialize_cuda_engine(data)
    except (OSError, ValueError) as error:  # ValueError: it is empty
        raise EngineError(f"{path} cannot be read: {error}") from error
    if engine is None:
        raise failure(f"TensorRT {trt.__version__} cannot read {path}")
    return engine


def refit_plan(engine: Any, onnx: Path) -> None:
    """Give the plan the weights of the graph in the file `onnx`, which is the one it was made from.

    EngineError where the plan cannot be given weights, or these are not its own by name and size;
    the plan is then to be thrown away.
    """
    trt = library()
    if not engine.refittable:
        raise EngineError("the plan was not built to be given other weights")
    refitter = trt.Refitter(engine, bridge())
    parser = trt.OnnxParserRefitter(refitter, bridge())
    if not parser.refit_from_file(str(onnx)):
        raise failure(f"{onnx} does not have the weights of the plan: {parser_errors(parser)}")
    if missing := refitter.get_missing_weights():
        raise EngineError(f"{onnx} lacks weights of the plan: {', '.join(missing)}")
    if not refitter.refit_cuda_engine():
        raise failure(f"TensorRT refuses the weights of {onnx}")


def parser_errors(parser: Any) -> str:
    """Everything that a parser of ONNX files has found, each with its place."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip() for error in errors
    )


def _place_weights(engine: Any) -> bool:
    """Keep as many weights on the device as fit; True where that is not all of them."""
    size = engine.streamable_weights_size  # 0 where the plan was built without the option
    if not size:
        return False
    budget = engine.get_weight_streaming_automatic_budget()
    engine.weight_streaming_budget_v2 = min(budget, size)
    return budget < size


def _differences(engine: Any, component: Component) -> list[str]:
    """Where names, types and shapes of the plan are not those of the component."""
    trt = library()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = {n: engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
    found = []
    for kind, specs in (("input", component.inputs), ("output", component.outputs)):
        here = [name for name in names if is_input[name] == (kind == "input")]
        if sorted(here) != sorted(specs):
            found.append(f"its {kind}s are {', '.join(here)}, not {', '.join(specs)}")
            continue
        for name, spec in specs.items():
            got = f"{NAMES.get(engine.get_tensor_dtype(name).name)} {_shape(engine, name)}"
            want = f"{spec.dtype} {tuple(a if isinstance(a, int) else -1 for a in spec.shape)}"
            if got != want:
                found.append(f"{kind} {name} is {got}, not {want}")
    return found


def _shape(engine: Any, name: str) -> tuple[int, ...]:
    return tuple(engine.get_tensor_shape(name))


def _range(engine: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    low, _, high = engine.get_tensor_profile_shape(name, 0)
    return tuple(low), tuple(high)


def _is_open(spec: TensorSpec) -> bool:
    return any(isinstance(axis, str) for axis in spec.shape)


def _aligned(tensor: Tensor) -> Tensor:
    """Where a view begins inside other memory it is copied."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
