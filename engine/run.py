"""One pass over one clip: the stages connected, with their clock, counts and cancellation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from . import report
from .backbones.base import Backbone
from .config import RestoreConfig
from .errors import Interrupted
from .pipeline import restore_frames
from .plan import Plan, describe
from .refine import Refiner
from .sr import SuperResolver
from .types import Chunk, Progress, StepInfo

OnProgress = Callable[[Progress], None]
Cancel = Callable[[], bool]


class Run:
    """Restores the frames of one clip once; `plan` is None where there is no backbone."""

    def __init__(
        self,
        config: RestoreConfig,
        backbone: Backbone | None,
        sr: SuperResolver | None,
        plan: Plan | None,
        device: torch.device,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ):
        self.config, self.plan, self.clock = config, plan, report.Clock()
        self._sr, self._device = sr, device
        self._on_progress, self._cancel = on_progress, cancel
        self._done = 0
        self._total: int | None = None
        self._backbone = backbone
        self._refiner = Refiner(backbone, config, plan) if backbone and plan else None

    def frames(
        self, frames: Iterable[Tensor], start: int, stop: int | None, total: int | None = None
    ) -> Iterator[Tensor]:
        """See `pipeline.restore_frames`; `total` is the expected number of frames, for progress."""
        self._total = total
        grid = self.plan.grid if self.plan else None
        refine = self._refine if self._refiner else None
        for frame in restore_frames(frames, start, stop, refine, grid, self._sr, self.clock):
            self._done += 1
            self._tell("restore", self._done, self._total)
            yield frame

    def _refine(self, part: Tensor, chunk: Chunk) -> Tensor:
        def on_step(info: StepInfo) -> None:
            self._tell("refine", info.step, info.num_steps)

        return self._refiner(part, chunk, on_step)

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        if self._cancel is not None and self._cancel():
            raise Interrupted("cancelled")
        if self._on_progress is not None:
            self._on_progress(Progress(stage, done, total))

    def report(self) -> dict[str, Any]:
        """Settings, plan, evaluations, seconds by stage, memory, machine, versions: plain data."""
        guidance = self._backbone and asdict(self.config.dtg(self._backbone.facts.defaults))
        return {
            "settings": asdict(self.config),
            "guidance": guidance,
            "plan": describe(self.plan) if self.plan else None,
            "evaluations": dict(self._refiner.evaluations) if self._refiner else {},
            "seconds": self.clock.describe(),
            "peak_memory_bytes": report.peak_memory(),
            "machine": report.machine(self._device),
            "versions": report.versions(),
        }
