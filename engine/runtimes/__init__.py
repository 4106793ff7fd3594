"""What executes a backbone.  `eager` is torch itself; compiled runtimes register beside it."""

from __future__ import annotations

from ..backbones.base import Backbone
from ..config import RestoreConfig
from ..errors import ConfigError
from ..registry import Entry, Registry

RUNTIMES = Registry(
    "runtime",
    [
        Entry("eager", ".runtimes.eager:wrap", "torch, operator by operator"),
        Entry("graph", ".runtimes.graph:wrap", "torch, recorded as CUDA graphs"),
    ],
)


def on_runtime(config: RestoreConfig, backbone: Backbone) -> Backbone:
    """`backbone` behind the same contract, executed by the runtime that `config` names.

    "auto" is graph on a GPU with all weights on it, else eager.  ConfigError for an unknown one, or
    one that cannot execute the backbone.
    """
    entry = RUNTIMES.get("eager" if config.runtime == "auto" else config.runtime)
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
    return reasons
