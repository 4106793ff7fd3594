"""The CUDA graph runtime: a pass of the backbone is recorded once and replayed.

A pass launches hundreds of kernels; where they are short, launching costs more than computing.  A
graph launches them all at once.  It reads its inputs where they lay when it was recorded, so they
are copied there before every replay; what is large and constant over a run (keys and values of the
text) is read in place instead, and is part of what the graph is known by.  The result is cloned:
the graph's own output is overwritten by the next replay.  `loop` records more at once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..backbones.base import Backbone, Context
from ..errors import EngineError
from ..schedule import Node

logger = logging.getLogger("dtg_restore")

IN_PLACE = 1 << 20  # bytes from which on a part of the condition is read where it lies
MAX_GRAPHS = 32
# Replay and eager pass run the same kernels; anything else is no rounding.
TOLERANCE = 1e-2

T = TypeVar("T")
Replay = Callable[[], object]


class Capture(Protocol):
    """Records calls."""

    def __call__(self, call: Callable[[], T], warm: bool) -> tuple[Replay, T]:
        """What replays `call`, and its result, which a replay writes anew.

        Unless `warm`, it is called once before: libraries set themselves up outside a recording.
        """
        ...


class Graph(NamedTuple):
    replay: Replay
    inputs: list[Any]  # leaves of the call, tensors being those that the graph reads
    output: Tensor


class GraphBackbone:
    """A backbone whose passes are graphs from the second call of a kind on.

    A pass that cannot be recorded, or whose replay does not give what the eager pass gave, stays
    eager, and the log says why.  `plain` is the backbone itself; `capture` records for the run that
    was prepared last.
    """

    def __init__(self, backbone: Backbone, make_capture: Callable[[], Capture] | None = None):
        self.facts, self.device, self.plain = backbone.facts, backbone.device, backbone
        self.attend = backbone.attend
        self._make_capture = make_capture or partial(CudaCapture, backbone.device)
        self._forget()

    def _forget(self) -> None:
        # A new recorder, as torch refuses a pool of memory whose graphs have all been dropped.
        self.capture = self._make_capture()
        self._seen: set[tuple] = set()
        self._graphs: OrderedDict[tuple, Graph | None] = OrderedDict()  # None: it stays eager
        self._recorded = self._replayed = 0
        self._refused: list[str] = []

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> Context:
        """As the backbone's; graphs that read the constants of an earlier run are dropped."""
        self._forget()
        return self.plain.prepare(prompt, negative_prompt, nodes)

    def on_device(self) -> AbstractContextManager[None]:
        return self.plain.on_device()

    def describe(self) -> dict[str, Any]:
        """Plain data for the report: passes recorded and replayed since `prepare`, and why others
        were not."""
        return {
            "recorded": self._recorded,
            "replayed": self._replayed,
            "refused": list(self._refused),
        }

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        leaves, form = tree_flatten((x, t, condition))
        key = (repr(form), *(_kind(leaf, place) for place, leaf in enumerate(leaves)))
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            self._replayed += 1
            return _run(graph, leaves)
        result = self.plain.velocity(x, t, condition)
        if key in self._seen and key not in self._graphs:
            self._keep(key, self._record(leaves, form, result))
        self._seen.add(key)
        return result

    def _record(self, leaves: list[Any], form: Any, expected: Tensor) -> Graph | None:
        inputs = [_static(leaf, place) for place, leaf in enumerate(leaves)]
        arguments = tree_unflatten(inputs, form)
        try:
            replay, output = self.capture(lambda: self.plain.velocity(*arguments), warm=False)
            output.fill_(torch.nan)  # by an empty recording the call's own result would stay
            graph = Graph(replay, inputs, output)
            check(_run(graph, leaves), expected)
        except (RuntimeError, EngineError) as problem:
            self._refused.append(reason(problem))
            logger.warning("a pass stays eager, as no graph of it is used: %s", reason(problem))
            return None
        self._recorded += 1
        return graph

    def _keep(self, key: tuple, graph: Graph | None) -> None:
        self._graphs[key] = graph
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)


class CudaCapture:
    """Records on a device; all graphs share one pool, as never two of them run at once.

    Other threads may use the device meanwhile: they copy frames and upscale.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, call: Callable[[], T], warm: bool) -> tuple[Replay, T]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(self._device)  # one, or graphs would share no memory
        here = torch.cuda.current_stream(self._device)
        if not warm:
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                call()
            here.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self._device), _own_workspaces(), recording:
            output = call()
        return graph.replay, output


@contextmanager
def _own_workspaces() -> Iterator[None]:
    """Within it, workspaces of matrix products are taken from the memory of the graph.

    torch keeps one a stream, and gives it up with the first graph of that stream that is dropped:
    other graphs would go on writing to memory that is someone else's by then.  In the graph's own
    pool it is used by nothing but graphs, of which one runs at a time.
    """
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
    clear()
    try:
        yield
    finally:
        clear()


def wrap(backbone: Backbone) -> Backbone:
    return GraphBackbone(backbone)


def check(got: Tensor, want: Tensor) -> None:
    """RuntimeError where a replay gave something else than the eager computation."""
    error = (got - want).abs().max() / want.abs().max()
    if not error <= TOLERANCE:  # nor is nan
        raise RuntimeError(f"its replay differs by {error:.1e}")


def reason(problem: Exception) -> str:
    """The first line: CUDA appends advice to its errors."""
    return str(problem).strip().partition("\n")[0]


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
