"""The sampling loop of a chunk: step by step, or as one CUDA graph of all its steps.

Gathering and blending the tiles, both branches and the step are recorded together, with the times
and weights of the run in them; noise, encoding and decoding stay outside.  The first chunk of a
shape runs step by step, on graphs of single passes where there are such; the second one is recorded
as it is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from torch import Tensor, nan

from ..backbones.base import Backbone
from ..config import TOLERANCES, RestoreConfig
from ..errors import EngineError
from ..memory import memory_size
from ..plan import Plan
from ..sampler import Branches, sample
from ..schedule import Node
from ..solver import Solver
from ..types import StepInfo
from .graph import Capture, GraphBackbone, Replay, check, reason

logger = logging.getLogger("dtg_restore")

OnStep = Callable[[StepInfo], None]


class Recording(NamedTuple):
    """A recorded loop: it reads `start` and writes the state before its last step and after it."""

    replay: Replay
    start: Tensor
    before: Tensor
    after: Tensor
    steps: list[StepInfo]


class SamplingLoop:
    """Callable (x at nodes[0].t, on_step) -> x at 0, in memory of the caller.

    `num_stepwise` and `num_replayed` count the chunks.  A loop that cannot be recorded, or whose
    last step is not what its replay gave, is no more tried, and the log says why.

    Parameters
    ----------
    branches, nodes, solver : see `sampler.sample`.
    recorded : the same branches on a backbone that records nothing itself.
    capture : what records; None, of both, where every chunk goes step by step, for `reasons`.
    """

    def __init__(
        self,
        branches: Branches,
        nodes: Sequence[Node],
        solver: str,
        recorded: Branches | None = None,
        capture: Capture | None = None,
        reasons: Sequence[str] = (),
    ):
        self._branches, self._nodes, self._solver = branches, nodes, solver
        self._recorded, self._capture, self._reasons = recorded, capture, list(reasons)
        self._steps: Solver | None = None
        self._seen: set[tuple[int, ...]] = set()
        self._recordings: dict[tuple[int, ...], Recording] = {}
        self.num_stepwise = self.num_replayed = 0

    def describe(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "recorded": len(self._recordings),
            "replayed": self.num_replayed,
            "stepwise": self.num_stepwise,
            "refused": list(self._reasons),
        }

    def __call__(self, x: Tensor, on_step: OnStep | None = None) -> Tensor:
        """`on_step` hears of the steps of a graph once all of them have been launched."""
        if self._steps is None:  # the table that recordings read
            self._steps = Solver(self._nodes, x.device)
        shape = tuple(x.shape)
        recording = self._recordings.get(shape)
        if recording is not None:
            _launch(recording, x)
        elif shape in self._seen:
            recording = self._record(x)
        self._seen.add(shape)
        if recording is None:
            self.num_stepwise += 1
            return self._sample(self._branches, x, on_step)
        self.num_replayed += 1
        result = recording.after.clone()
        if on_step is not None:
            for info in recording.steps:
                on_step(info)
        return result

    def _sample(self, branches: Branches, x: Tensor, on_step: OnStep | None) -> Tensor:
        return sample(branches, x, self._nodes, self._solver, on_step, self._steps)

    def _record(self, x: Tensor) -> Recording | None:
        """The loop, recorded and run with x; None where it cannot be."""
        if self._recorded is None or self._capture is None:
            return None
        try:
            recording = self._trace(x.clone(), self._recorded, self._capture)
            recording.before.fill_(nan)  # by an empty recording the call's own result would stay
            recording.after.fill_(nan)
            _launch(recording, x)
            check(recording.after, self._last_step(recording.before, self._recorded))
        except (RuntimeError, EngineError) as problem:
            self._capture = None
            self._reasons.append(reason(problem))
            logger.warning("no graph of the sampling loop is used: %s", reason(problem))
            return None
        self._recordings[tuple(x.shape)] = recording
        return recording

    def _trace(self, start: Tensor, branches: Branches, capture: Capture) -> Recording:
        last = len(self._nodes) - 2
        states: dict[int, Tensor] = {}
        steps: list[StepInfo] = []

        def watched(x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
            if index == last:
                states[index] = x
            return branches(x, index)

        def call() -> tuple[Tensor, Tensor]:
            steps.clear()
            after = self._sample(watched, start, steps.append)
            return states[last], after

        # The first chunk has warmed everything up that is in the loop.
        replay, (before, after) = capture(call, warm=True)
        return Recording(replay, start, before, after, steps)

    def _last_step(self, x: Tensor, branches: Branches) -> Tensor:
        last = len(self._nodes) - 2
        return sample(lambda x, i: branches(x, last + i), x, self._nodes[last:], self._solver)


def why_stepwise(backbone: Backbone, config: RestoreConfig, plan: Plan) -> list[str]:
    """Why the loop of a run cannot be one graph; empty where it can."""
    if not isinstance(backbone, GraphBackbone):
        return ["the runtime records no graphs"]
    reasons = []
    for name in TOLERANCES:
        if getattr(config, name) > 0:
            reasons.append(f"with {name} the host decides between the steps")
    size, memory = memory_size(backbone.device), plan.memory
    # What a graph computes in stays its own: refinement and codec take no turns.
    needed = sum(v for k, v in asdict(memory).items() if k not in ("waiting", "on_cpu"))
    if size is not None and needed > size:
        reasons.append(f"a graph and the codec need {needed} bytes at once, of {size}")
    return reasons


def _launch(recording: Recording, x: Tensor) -> None:
    recording.start.copy_(x)
    recording.replay()
