"""Stages as plans of TensorRT, made from their ONNX graphs.

Types are those of the graph: the network is strongly typed, so that bf16, fp16 and fp8 (by explicit
quantisation) are where the graph has them and nowhere else.

There is no plugin for `dtg_step`.  With n values of 4 bytes in the state, the step reads the state
and both velocities and writes the state, between two calls of engines: 16 n bytes.  A plugin could
only save the way of the velocities through memory, by joining the step to the layer that makes
them: 16 n bytes as well, of 24 n together.  For 81 frames of 832 x 480 pixels in Wan n is
2.1 million: 34 MB, or 10 microseconds of an H100's memory, once a step of some 560 TFLOP, which is
about a second.  For that, both branches would have to be one engine with the state in it: no
blending of tiles before the step, no branch left out, nothing for reuse to keep.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..engine.errors import ConfigError, EngineError
from ..engine.runtimes.tensorrt import bridge, failure, library, parser_errors, version_of
from . import timing_cache
from .graph import OPSET, read_graph
from .monitor import OnProgress, interruptible, make_monitor
from .onnx import to_onnx
from .operators import unsupported
from .stage import Artefact, Stage

LEVELS = range(6)


@dataclass(frozen=True)
class TensorRTOptions:
    """Parameters
    ----------
    device : GPU that the plan is made on and for.
    opset : of the ONNX graph, 20 to 23.
    level : 0 to 5; a higher one searches longer for faster kernels, and below 1 timings are not
        remembered.
    workspace : bytes that a layer may take for itself; None: all memory of the device.
    weight_streaming : the plan can keep weights on the host that do not fit on the device.  Where
        it does, a pass waits for the device and is recorded in no CUDA graph.
    refit : the plan can be given other weights (`refit`).  Constants are then not folded into
        layers, which can cost speed.
    strip : the plan holds no weights; the graph stays beside it and lends it its own when it is
        opened.
    hardware_compatible : the plan runs on every GPU from Ampere on.  It is made without cuBLAS and
        cuDNN and with 48 KiB of shared memory, hence slower; fp8 is not in all of these GPUs.
    version_compatible : the plan runs with later versions of TensorRT.  It holds a runtime of its
        own (some 40 MB), which cannot refit, and layers that this one does not have are excluded.

    Raises
    ------
    ConfigError : a value is out of range, or two exclude each other.
    """

    device: torch.device = torch.device("cuda")
    opset: int = OPSET
    level: int = 3
    workspace: int | None = None
    weight_streaming: bool = False
    refit: bool = False
    strip: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level must be in 0 .. {LEVELS[-1]}, not {self.level}")
        if self.workspace is not None and self.workspace < 1:
            raise ConfigError(f"workspace must be above 0, not {self.workspace}")
        if self.version_compatible and (self.refit or self.strip):
            raise ConfigError(
                "version_compatible excludes refit and strip: the runtime that such a plan holds "
                "cannot refit"
            )


def to_tensorrt(
    stage: Stage,
    folder: Path,
    options: TensorRTOptions | None = None,
    on_progress: OnProgress | None = None,
    write: Callable[[Stage, Path], Artefact] | None = None,
) -> Artefact:
    """Write the plan of a stage to `folder`; nothing else of it stays there on a failure.

    Parameters
    ----------
    on_progress : called with the stage's name and the share of the build that is done, from
        another thread; what it raises ends the build.
    write : what makes the ONNX graph in a folder; None = `to_onnx` with the opset of `options`.

    Raises
    ------
    EngineError : TensorRT is not installed, knows an operator of the graph not, or cannot build.
    BaseException : what interrupted the build, such as KeyboardInterrupt.
    """
    options = options or TensorRTOptions()
    library()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".onnx-") as beside:
        place = Path(beside)
        graph = write(stage, place) if write else to_onnx(stage, place, options.opset)
        plan = place / f"{stage.name}.plan"
        _check_operators(stage, place / graph.files[0])
        _write_plan(stage, place / graph.files[0], plan, options, on_progress)
        kept = (plan.name, *(graph.files if options.strip else ()))
        for name in kept:
            (place / name).replace(folder / name)
    return Artefact(kept, graph.inputs, graph.outputs, graph.onnx_sha256)


def _check_operators(stage: Stage, path: Path) -> None:
    """Before the parser, as one list for all of the graph."""
    if found := unsupported(read_graph(path)):
        raise EngineError(f"TensorRT cannot read the graph of {stage.name}: {'; '.join(found)}")


def _write_plan(
    stage: Stage,
    graph: Path,
    plan: Path,
    options: TensorRTOptions,
    on_progress: OnProgress | None,
) -> None:
    report: Callable[[float], None] | None = None
    if on_progress is not None:
        notify = on_progress

        def report(fraction: float) -> None:
            notify(stage.name, fraction)

    monitor = make_monitor(report)

    def build() -> None:
        with torch.cuda.device(options.device):
            torch.cuda.empty_cache()  # kernels are timed in what is free
            plan.write_bytes(_built(stage, graph, options, monitor))

    interruptible(build, monitor)


def _built(stage: Stage, graph: Path, options: TensorRTOptions, monitor: Any) -> Any:
    """The plan's bytes.  All that the library needed for them is freed with this call."""
    trt = library()
    bridge().errors.clear()
    builder = trt.Builder(bridge())
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, bridge())  # it owns the weights until the plan is built
    if not parser.parse_from_file(str(graph)):
        raise failure(f"TensorRT cannot read the graph of {stage.name}: {parser_errors(parser)}")
    config = _config(trt, builder, options)
    _add_profile(builder, config, stage)
    config.progress_monitor = monitor
    cache = timing_cache.attach(config, options.device)
    plan = builder.build_serialized_network(network, config)
    if monitor.problem is not None:
        raise monitor.problem
    if plan is None:
        raise failure(f"TensorRT cannot build {stage.name}")
    timing_cache.keep(config, cache, options.device)
    return plan


def _strongly_typed(trt: Any) -> int:
    """Flags of a network; there is no other kind from version 11 on."""
    if version_of(trt)[0] >= 11:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _config(trt: Any, builder: Any, options: TensorRTOptions) -> Any:
    config = builder.create_builder_config()
    config.builder_optimization_level = options.level
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32, as in the other runtimes
    flags = {
        trt.BuilderFlag.WEIGHT_STREAMING: options.weight_streaming,
        trt.BuilderFlag.REFIT: options.refit,
        trt.BuilderFlag.STRIP_PLAN: options.strip,
        trt.BuilderFlag.VERSION_COMPATIBLE: options.version_compatible,
    }
    for flag, is_set in flags.items():
        if is_set:
            config.set_flag(flag)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    return config


def _add_profile(builder: Any, config: Any, stage: Stage) -> None:
    """The sizes that open axes may have; a graph without any needs no profile."""
    if not stage.open_axes:
        return
    profile = builder.create_optimization_profile()
    for name, axes in stage.open_axes.items():
        shape = tuple(stage.inputs[name].shape)
        profile.set_shape(
            name,
            _sized(shape, {i: a.low for i, a in axes.items()}),
            _sized(shape, {i: a.typical for i, a in axes.items()}),
            _sized(shape, {i: a.high for i, a in axes.items()}),
        )
    if config.add_optimization_profile(profile) < 0:
        raise failure(f"TensorRT refuses the sizes of {stage.name}")


def _sized(shape: tuple[int, ...], sizes: dict[int, int]) -> tuple[int, ...]:
    return tuple(sizes.get(axis, size) for axis, size in enumerate(shape))
