"""What executes a backbone: torch as it is, recorded, or what was compiled ahead of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import RestoreConfig
from ..errors import ConfigError
from ..registry import Entry, Registry

if TYPE_CHECKING:  # or who imports a manifest first would meet a cycle
    from ..backbones.base import Backbone

# The first two wrap a backbone; the others open a component of a bundle, see `engines`.
RUNTIMES = Registry(
    "runtime",
    [
        Entry("eager", ".runtimes.eager:wrap", "torch, operator by operator"),
        Entry("graph", ".runtimes.graph:wrap", "torch, recorded as CUDA graphs"),
        Entry("ort", ".runtimes.ort:open_engine", "bundles, by ONNX Runtime"),
        Entry(
            "ort-tensorrt",
            ".runtimes.ort:open_with_tensorrt",
            "bundles of ONNX files, by TensorRT inside ONNX Runtime",
        ),
        Entry("aot", ".runtimes.aot:open_engine", "bundles, by AOTInductor"),
        Entry("tensorrt", ".runtimes.tensorrt:open_engine", "bundles, by TensorRT"),
        Entry("onnx", ".runtimes.ort:open_engine", "bundles of ONNX files, by ONNX Runtime"),
    ],
)
# What files that were made for a runtime can be executed by, the preferred one first.
EXECUTORS = {
    "onnx": ("onnx", "ort", "ort-tensorrt"),
    "ort": ("ort",),
    "aot": ("aot",),
    "tensorrt": ("tensorrt",),
}
COMPILED = {name for names in EXECUTORS.values() for name in names}
# Why calls of engines cannot be part of a recording; those of TensorRT can.
_WAITS = "ONNX Runtime takes memory and waits for the device as it sees fit"
UNRECORDED = {
    **dict.fromkeys(("onnx", "ort", "ort-tensorrt"), _WAITS),
    "aot": "calls of AOTInductor have not been tried within a recording",
}


def on_runtime(config: RestoreConfig, backbone: Backbone) -> Backbone:
    """`backbone` behind the same contract, executed by the runtime that `config` names.

    "auto" is what a bundle was compiled for, its calls recorded where that can be done; else graph
    on a GPU with all weights on it, else eager.  ConfigError for an unknown one, or one that cannot
    execute the backbone.
    """
    is_compiled = bool(backbone.facts.buckets)
    if is_compiled and (config.runtime == "auto" or config.runtime in COMPILED):
        # Its engines were chosen when it was opened.
        is_recorded = config.runtime == "auto" and not _no_graph(config, backbone)
        return RUNTIMES.get("graph").build(backbone) if is_recorded else backbone
    entry = RUNTIMES.get("eager" if config.runtime == "auto" else config.runtime)
    if is_compiled != (entry.name in COMPILED):
        raise ConfigError(
            f"runtime is {config.runtime!r}: it executes {'models' if is_compiled else 'bundles'}, "
            f"and {backbone.facts.name} is {'a bundle' if is_compiled else 'none: export it first'}"
        )
    reasons = _no_graph(config, backbone)
    if config.runtime == "auto" and not reasons:
        entry = RUNTIMES.get("graph")
    elif config.runtime == "graph" and reasons:
        raise ConfigError(f"runtime is 'graph': {'; '.join(reasons)}")
    return entry.build(backbone)


def _no_graph(config: RestoreConfig, backbone: Backbone) -> list[str]:
    """Why passes of the backbone cannot be recorded."""
    reasons = []
    if backbone.device.type != "cuda":
        reasons.append(f"it needs a GPU, and the device is {backbone.device}")
    if config.offload != "none":
        reasons.append(f"with offload {config.offload} the weights do not stay where they are")
    if reason := UNRECORDED.get(backbone.facts.runtime):
        reasons.append(reason)
    return reasons
