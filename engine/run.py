"""One pass over one clip: the stages connected, with their clock, counts and cancellation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import report
from .backbones.base import Backbone
from .codecs.base import Codec
from .config import RestoreConfig
from .devices import named_out_of_memory
from .errors import Interrupted
from .pipeline import restore_frames
from .plan import Plan, describe
from .progress import Meter
from .refine import Refiner
from .sr import SuperResolver
from .types import Chunk, Progress, StepInfo

OnProgress = Callable[[Progress], None]
Cancel = Callable[[], bool]
NOTHING_EVALUATED: dict[str, Any] = {
    "evaluations": {},
    "elision": None,
    "branches": None,
    "attention": None,
}


class Run:
    """Restores the frames of one clip, of `size` (height, width), once.

    `plan` is None where there is no backbone.
    """

    def __init__(
        self,
        config: RestoreConfig,
        backbone: Backbone | None,
        codec: Codec | None,
        sr: SuperResolver | None,
        plan: Plan | None,
        device: torch.device,
        size: tuple[int, int],
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ):
        self.config, self.plan, self.clock = config, plan, report.Clock()
        self._sr, self._device = sr, device
        self._on_progress, self._cancel = on_progress, cancel
        self._meter = Meter(plan, sr.facts if sr else None, size)
        self._backbone = backbone
        self._refiner = None
        if backbone and codec and plan:
            self._refiner = Refiner(backbone, codec, config, plan)

    def frames(
        self, frames: Iterable[Tensor], start: int, stop: int | None, num_frames: int | None = None
    ) -> Iterator[Tensor]:
        """See `pipeline.restore_frames`; `num_frames` is what the clip claims, for progress."""
        self._meter.expect(start, stop, num_frames)
        grid = self.plan.grid if self.plan else None
        refine = partial(self._refine, self._refiner) if self._refiner else None
        with named_out_of_memory():
            for frame in restore_frames(frames, start, stop, refine, grid, self._sr, self.clock):
                self._tell(self._meter.frame())
                yield frame

    def _refine(self, refiner: Refiner, part: Tensor, chunk: Chunk) -> Tensor:
        def on_step(info: StepInfo) -> None:
            self._tell(self._meter.step(info.step, info.num_steps))

        return refiner(part, chunk, on_step)

    def _tell(self, progress: Progress) -> None:
        if self._cancel is not None and self._cancel():
            raise Interrupted("cancelled")
        if self._on_progress is not None:
            self._on_progress(progress)

    def report(self) -> dict[str, Any]:
        """Settings, plan, evaluations made and saved, seconds by stage, memory, machine, versions:
        plain data."""
        guidance = self._backbone and asdict(self.config.dtg(self._backbone.facts.defaults))
        return {
            "settings": asdict(self.config),
            "guidance": guidance,
            "weights": {
                name: report.weights(getattr(self.config, name)) for name in ("backbone", "sr")
            },
            "plan": describe(self.plan) if self.plan else None,
            **(self._refiner.describe() if self._refiner else NOTHING_EVALUATED),
            "seconds": self.clock.describe(),
            "peak_memory_bytes": report.peak_memory(),
            "machine": report.machine(self._device),
            "versions": report.versions(),
        }
