"""What executes a backbone.  `eager` is torch itself; compiled runtimes register beside it."""

from __future__ import annotations

from ..backbones.base import Backbone
from ..registry import Entry, Registry

RUNTIMES = Registry(
    "runtime", [Entry("eager", ".runtimes.eager:wrap", "torch, operator by operator")]
)


def on_runtime(name: str, backbone: Backbone) -> Backbone:
    """`backbone` behind the same contract, executed by the runtime `name`.

    "auto" is the fastest that is available; ConfigError for an unknown one.
    """
    return RUNTIMES.get("eager" if name == "auto" else name).build(backbone)
