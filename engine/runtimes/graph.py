"""The CUDA graph runtime: a pass of the backbone is recorded once and replayed.

A pass launches hundreds of kernels; where they are short, launching costs more than computing.  A
graph launches them all at once.  It reads its inputs where they lay when it was recorded, so they
are copied there before every replay; what is large and constant over a run (keys and values of the
text) is read in place instead, and is part of what the graph is known by.  The result is cloned:
the graph's own output is overwritten by the next replay.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..backbones.base import Backbone, Context
from ..schedule import Node

logger = logging.getLogger("dtg_restore")

IN_PLACE = 1 << 20  # bytes from which on a part of the condition is read where it lies
MAX_GRAPHS = 32
# Replay and eager pass run the same kernels; anything else is no rounding.
TOLERANCE = 1e-2

Replay = Callable[[], object]
# Records a call: gives what replays it and the tensor that a replay writes.
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]


class Graph(NamedTuple):
    replay: Replay
    inputs: list[Any]  # leaves of the call, tensors being those that the graph reads
    output: Tensor


class GraphBackbone:
    """A backbone whose passes are graphs from the second call of a kind on.

    A pass that cannot be recorded, or whose replay does not give what the eager pass gave, stays
    eager, and the log says why.
    """

    def __init__(self, backbone: Backbone, capture: Capture | None = None):
        self.facts, self.device = backbone.facts, backbone.device
        self.attend = backbone.attend
        self._backbone, self._capture = backbone, capture or CudaCapture(backbone.device)
        self._seen: set[tuple] = set()
        self._graphs: OrderedDict[tuple, Graph | None] = OrderedDict()  # None: it stays eager

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> Context:
        """As the backbone's; graphs that read the constants of an earlier run are dropped."""
        self._seen.clear()
        self._graphs.clear()
        return self._backbone.prepare(prompt, negative_prompt, nodes)

    def on_device(self) -> AbstractContextManager[None]:
        return self._backbone.on_device()

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        leaves, form = tree_flatten((x, t, condition))
        key = (repr(form), *(_kind(leaf, place) for place, leaf in enumerate(leaves)))
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            return _run(graph, leaves)
        result = self._backbone.velocity(x, t, condition)
        if key in self._seen and key not in self._graphs:
            self._keep(key, self._record(leaves, form, result))
        self._seen.add(key)
        return result

    def _record(self, leaves: list[Any], form: Any, expected: Tensor) -> Graph | None:
        inputs = [_static(leaf, place) for place, leaf in enumerate(leaves)]
        arguments = tree_unflatten(inputs, form)
        try:
            replay, output = self._capture(lambda: self._backbone.velocity(*arguments))
            graph = Graph(replay, inputs, output)
            error = (_run(graph, leaves) - expected).abs().max() / expected.abs().max()
        except RuntimeError as problem:
            reason = str(problem).strip().partition("\n")[0]
            logger.warning("a pass stays eager, as no graph of it can be recorded: %s", reason)
            return None
        if not error <= TOLERANCE:
            logger.warning("a pass stays eager, as its graph differs from it by %.1e", error)
            return None
        return graph

    def _keep(self, key: tuple, graph: Graph | None) -> None:
        self._graphs[key] = graph
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)


class CudaCapture:
    """Records on a device; all graphs share one pool, as never two of them run at once."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool: Any = None

    def __call__(self, call: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        here, aside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # libraries set themselves up outside the recording
            call()
        here.wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = call()
        return graph.replay, output


def wrap(backbone: Backbone) -> Backbone:
    return GraphBackbone(backbone)


def _run(graph: Graph, leaves: list[Any]) -> Tensor:
    for place, (static, leaf) in enumerate(zip(graph.inputs, leaves, strict=True)):
        if isinstance(leaf, Tensor) and not _is_in_place(leaf, place):
            static.copy_(leaf)
    graph.replay()
    return graph.output.clone()


def _static(leaf: Any, place: int) -> Any:
    """What the graph reads for `leaf`: itself where it is constant, else memory of its own."""
    if not isinstance(leaf, Tensor) or _is_in_place(leaf, place):
        return leaf
    return torch.empty_like(leaf).copy_(leaf)


def _is_in_place(leaf: Tensor, place: int) -> bool:
    return place > 1 and leaf.nbytes >= IN_PLACE  # x and t come first


def _kind(leaf: Any, place: int) -> Any:
    """What a recorded pass depends on besides the values in its memory."""
    if not isinstance(leaf, Tensor):
        return id(leaf) if isinstance(leaf, torch.nn.Module) else leaf
    address = leaf.data_ptr() if _is_in_place(leaf, place) else None
    return tuple(leaf.shape), leaf.stride(), leaf.dtype, address
