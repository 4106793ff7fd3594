"""A stand-in for TensorRT: the names of it that the package uses, with ONNX Runtime inside.

Its plans hold an ONNX graph, and its contexts execute that on the processor, at the very addresses
that they were given.  It shows that our calls come in an order that makes sense and what becomes of
their results; it shows nothing about TensorRT itself.  A name that TensorRT does not have is not
here either, as `tests/export/test_tensorrt_names.py` sees to, and objects take no other attributes.
"""

from __future__ import annotations

import ctypes
import enum
import json
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

__version__ = "10.3.0"
ALIGNMENT = 64  # bytes; torch aligns to 512 on a GPU, and to this on a processor
SCRATCH = 1000  # bytes that a pass needs, as long as all sizes are known
SECONDS = 0.0  # for each step of a build
NUM_STEPS = 4

DATA_TYPES = {1: "FLOAT", 3: "INT8", 6: "INT32", 7: "INT64", 10: "HALF", 16: "BF16", 17: "FP8"}
DataType = enum.IntEnum("DataType", sorted(DATA_TYPES.values()), start=0)
TensorIOMode = enum.IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0)
MemoryPoolType = enum.IntEnum("MemoryPoolType", ["WORKSPACE"], start=0)
HardwareCompatibilityLevel = enum.IntEnum(
    "HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"], start=0
)
NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"], start=1
)
ExecutionContextAllocationStrategy = enum.IntEnum(
    "ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"], start=0
)
BuilderFlag = enum.IntEnum(
    "BuilderFlag",
    ["REFIT", "TF32", "VERSION_COMPATIBLE", "STRIP_PLAN", "WEIGHT_STREAMING"],
    start=0,
)
SerializationFlag = enum.IntEnum("SerializationFlag", ["EXCLUDE_WEIGHTS"], start=0)


class ILogger:
    Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


def _size(value: Any) -> int:
    return int(np.prod(value.dims))


# -- running --------------------------------------------------------------------------------------


class Runtime:
    __slots__ = ("_logger", "engine_host_code_allowed")

    def __init__(self, logger: ILogger):
        self._logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        head, _, graph = bytes(serialized_engine).partition(b"\n")
        try:
            facts = json.loads(head)
        except ValueError:
            self._logger.log(ILogger.ERROR, "Magic tag does not match")
            return None
        if facts["version"] != __version__ and not facts["version_compatible"]:
            self._logger.log(ILogger.ERROR, f"The plan is of version {facts['version']}")
            return None
        if facts["version_compatible"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "Host code is not allowed")
            return None
        return ICudaEngine(self._logger, facts, onnx.load_from_string(graph))


class ICudaEngine:
    __slots__ = ("_budget", "_facts", "_logger", "_model", "_num_contexts", "_tensors")

    def __init__(self, logger: ILogger, facts: dict[str, Any], model: Any):
        self._logger, self._facts, self._model = logger, facts, model
        graph = model.graph
        self._tensors = {v.name: (TensorIOMode.INPUT, v) for v in graph.input}
        self._tensors |= {v.name: (TensorIOMode.OUTPUT, v) for v in graph.output}
        self._budget, self._num_contexts = self.streamable_weights_size, 0

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def refittable(self) -> bool:
        return bool(self._facts["refittable"])

    @property
    def streamable_weights_size(self) -> int:
        return int(self._facts["streamable"])

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        assert not self._num_contexts, "there are contexts already"
        self._budget = budget

    @property
    def device_memory_size_v2(self) -> int:
        return 100 * SCRATCH if self._facts["profile"] else SCRATCH

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[DATA_TYPES[self._tensors[name][1].type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> list[int]:
        dims = self._tensors[name][1].type.tensor_type.shape.dim
        return [d.dim_value if d.HasField("dim_value") else -1 for d in dims]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        assert profile_index == 0
        return self._facts["profile"][name]

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if self._facts["stripped"]:
            self._logger.log(ILogger.ERROR, "The plan has no weights")
            return None
        self._num_contexts += 1
        return IExecutionContext(self)

    def create_serialization_config(self) -> ISerializationConfig:
        return ISerializationConfig()

    def serialize_with_config(self, config: ISerializationConfig) -> memoryview:
        return _plan(self._facts, self._model)


class ISerializationConfig:
    __slots__ = ("_flags",)

    def __init__(self) -> None:
        self._flags: set[Any] = set()

    def set_flag(self, flag: Any) -> bool:
        self._flags.add(SerializationFlag(flag))
        return True


class IExecutionContext:
    __slots__ = ("_addresses", "_engine", "_logger", "_memory", "_session", "_shapes")

    def __init__(self, engine: ICudaEngine):
        self._engine, self._logger = engine, engine._logger
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._memory = (0, 0)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            engine._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._facts["profile"][name]
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            self._logger.log(ILogger.ERROR, f"{name} is out of its profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._shapes.keys() == self._engine._facts["profile"].keys()
        return SCRATCH + sum(map(sum, self._shapes.values()))

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors or memory % ALIGNMENT:
            self._logger.log(ILogger.ERROR, f"{name} cannot lie at {memory}")
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        problem = self._problem()
        if problem or not isinstance(stream_handle, int):
            self._logger.log(ILogger.ERROR, problem)
            return False
        modes = self._engine._tensors
        inputs = {n: self._array(n) for n in modes if modes[n][0] == TensorIOMode.INPUT}
        outputs = [n for n in modes if n not in inputs]
        for name, value in zip(outputs, self._session.run(outputs, inputs), strict=True):
            ctypes.memmove(self._addresses[name], value.ctypes.data, value.nbytes)
        ctypes.memset(*((self._memory[0], 255, self._memory[1])))  # nothing that matters lies there
        return True

    def _problem(self) -> str:
        if absent := self._engine._tensors.keys() - self._addresses.keys():
            return f"no address of {absent}"
        if absent := self._engine._facts["profile"].keys() - self._shapes.keys():
            return f"no shape of {absent}"
        needed = self.update_device_memory_size_for_shapes() if self._shapes else SCRATCH
        return "" if self._memory[1] >= needed else "too little memory"

    def _array(self, name: str) -> Any:
        shape = self._shapes.get(name) or self._engine.get_tensor_shape(name)
        kind = self._engine._tensors[name][1].type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        buffer = ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)
        memory = buffer.from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(tuple(shape))


# -- building -------------------------------------------------------------------------------------


class Builder:
    __slots__ = ("_logger",)

    def __init__(self, logger: ILogger):
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == (2 if __version__ < "11" else 0), "not strongly typed"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: IBuilderConfig) -> memoryview | None:
        model, flags = network._model, config._flags
        open_inputs = {
            v.name
            for v in model.graph.input
            if not all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)
        }
        profile = config._profile._shapes if config._profile else {}
        if open_inputs != profile.keys():
            self._logger.log(ILogger.ERROR, f"the profile is of {set(profile)}, not {open_inputs}")
            return None
        if not self._steps(config.progress_monitor):
            self._logger.log(ILogger.ERROR, "the build was ended")
            return None
        config._cache._entries |= {node.op_type for node in model.graph.node}
        is_stripped = BuilderFlag.STRIP_PLAN in flags
        size = sum(_size(i) for i in model.graph.initializer)
        facts = {
            "version": __version__,
            "version_compatible": BuilderFlag.VERSION_COMPATIBLE in flags,
            "refittable": is_stripped or BuilderFlag.REFIT in flags,
            "stripped": is_stripped,
            "streamable": size if BuilderFlag.WEIGHT_STREAMING in flags else 0,
            "profile": profile,
            "level": config.builder_optimization_level,
            "tf32": BuilderFlag.TF32 in flags,
            "hardware": int(config.hardware_compatibility_level),
            "workspace": config._pools.get(MemoryPoolType.WORKSPACE),
        }
        if is_stripped:
            model = onnx.ModelProto.FromString(model.SerializeToString())
            for initializer in model.graph.initializer:
                initializer.ClearField("raw_data")
        return _plan(facts, model)

    def _steps(self, monitor: IProgressMonitor) -> bool:
        monitor.phase_start("whole", None, NUM_STEPS)
        goes_on = True
        for step in range(NUM_STEPS):
            time.sleep(SECONDS)
            monitor.phase_start("part", "whole", 2)
            goes_on = all(monitor.step_complete("part", part) for part in range(2))
            monitor.phase_finish("part")
            goes_on = goes_on and monitor.step_complete("whole", step)
            if not goes_on:
                break
        monitor.phase_finish("whole")
        return goes_on


class INetworkDefinition:
    __slots__ = ("_model",)


class IOptimizationProfile:
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError("the sizes are in no order")
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IBuilderConfig:
    __slots__ = (
        *("_cache", "_flags", "_pools", "_profile", "builder_optimization_level"),
        *("hardware_compatibility_level", "progress_monitor"),
    )

    def __init__(self) -> None:
        self._flags, self._pools, self._profile = {BuilderFlag.TF32}, {}, None
        self._cache: ITimingCache | None = None
        self.builder_optimization_level, self.progress_monitor = 3, None
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def set_flag(self, flag: Any) -> None:
        self._flags.add(BuilderFlag(flag))

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(BuilderFlag(flag))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[MemoryPoolType(pool)] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        try:
            return ITimingCache(json.loads(serialized_timing_cache or "{}"))
        except ValueError:
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._version != __version__ and not ignore_mismatch:
            return False
        self._cache = cache
        return True


class ITimingCache:
    __slots__ = ("_entries", "_version")

    def __init__(self, content: dict[str, Any]):
        self._version = content.get("version", __version__)
        self._entries = set(content.get("entries", ()))

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache._version != self._version and not ignore_mismatch:
            return False
        self._entries |= input_cache._entries
        return True

    def serialize(self) -> memoryview:
        content = {"version": self._version, "entries": sorted(self._entries)}
        return memoryview(json.dumps(content).encode())


def _plan(facts: dict[str, Any], model: Any) -> memoryview:
    return memoryview(json.dumps(facts).encode() + b"\n" + model.SerializeToString())


# -- reading ONNX ---------------------------------------------------------------------------------


class ParserError:
    __slots__ = ("_desc", "_name", "_operator")

    def __init__(self, desc: str, name: str = "", operator: str = ""):
        self._desc, self._name, self._operator = desc, name, operator

    def desc(self) -> str:
        return self._desc

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


class _Parser:
    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def _load(self, path: str) -> Any:
        try:
            return onnx.load(path)
        except Exception as error:
            self._errors.append(ParserError(f"cannot read the file: {error}"))
            return None


class OnnxParser(_Parser):
    __slots__ = ("_network",)

    def __init__(self, network: INetworkDefinition, logger: ILogger):
        super().__init__()
        self._network = network

    def parse_from_file(self, model: str) -> bool:
        proto = self._load(model)
        if proto is None:
            return False
        self._errors += [
            ParserError("no importer", node.name, node.op_type)
            for node in proto.graph.node
            if node.domain or node.op_type == "Bernoulli"
        ]
        self._network._model = proto
        return not self._errors


class Refitter:
    __slots__ = ("_engine", "_given", "_logger")

    def __init__(self, engine: ICudaEngine, logger: ILogger):
        assert engine.refittable
        self._engine, self._logger, self._given = engine, logger, {}

    def get_missing_weights(self) -> list[str]:
        return [i.name for i in self._engine._model.graph.initializer if i.name not in self._given]

    def refit_cuda_engine(self) -> bool:
        for initializer in self._engine._model.graph.initializer:
            initializer.CopyFrom(self._given[initializer.name])
        self._engine._facts = self._engine._facts | {"stripped": False}
        return True


class OnnxParserRefitter(_Parser):
    __slots__ = ("_refitter",)

    def __init__(self, refitter: Refitter, logger: ILogger):
        super().__init__()
        self._refitter = refitter

    def refit_from_file(self, model: str) -> bool:
        proto = self._load(model)
        if proto is None:
            return False
        new = {i.name: i for i in proto.graph.initializer}
        for old in self._refitter._engine._model.graph.initializer:
            found = new.get(old.name)
            if found is None or list(found.dims) != list(old.dims):
                self._errors.append(ParserError("no such weights, or of another size", old.name))
            else:
                fresh = numpy_helper.from_array(numpy_helper.to_array(found), old.name)
                self._refitter._given[old.name] = fresh
        return not self._errors
