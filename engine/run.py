"""One pass over one clip: the stages connected, with their clock, counts and cancellation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import partial
from threading import Event, RLock
from typing import Any

import torch
from torch import Tensor

from . import report
from .backbones.base import Backbone
from .codecs.base import Codec
from .config import RestoreConfig
from .devices import named_out_of_memory
from .errors import Interrupted
from .memory import memory_size
from .overlap import ahead
from .pipeline import Beside, Place, restore_frames
from .plan import Plan, describe, upscale_memory
from .progress import Meter
from .refine import Refiner
from .shots import place
from .sr import SuperResolver
from .timeline import Timeline
from .types import Chunk, Progress, StepInfo

OnProgress = Callable[[Progress], None]
Cancel = Callable[[], bool]
NOTHING_EVALUATED: dict[str, Any] = {"evaluations": {}} | dict.fromkeys(
    ("elision", "reuse", "caching", "branches", "attention", "runtime")
)


class Run:
    """Restores the frames of one clip, of `size` (height, width), once.

    `plan` is None where there is no backbone.  `shots` are the first frames of the clip's shots;
    None = they are looked for in the frames as these come, which then begin with the clip.
    `clock` has the time that was spent on the clip before; None = a new one.
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
        shots: tuple[int, ...] | None = (0,),
        clock: report.Clock | None = None,
    ):
        self.timeline = Timeline(plan.grid if plan else None, shots or (0,))
        self._place: Place | None = place if shots is None else None
        self.config, self.plan, self.clock = config, plan, clock or report.Clock()
        self._device = device
        self._on_progress, self._cancel = on_progress, cancel
        self._telling, self._over = RLock(), Event()  # one tells at a time, whatever the thread
        self._meter = Meter(plan, sr.facts if sr else None, size, self.timeline)
        self._backbone = backbone
        self._refiner = None
        if backbone and codec and plan:
            self._refiner = Refiner(backbone, codec, config, plan, self.clock)
        self._in_turns = why_in_turns(plan, sr, device, size)
        self._sr = sr if sr is None or self._in_turns else OnStream(sr, device)

    def frames(
        self, frames: Iterable[Tensor], start: int, stop: int | None, num_frames: int | None = None
    ) -> Iterator[Tensor]:
        """See `pipeline.restore_frames`; `num_frames` is what the clip claims, for progress.

        Where there is room the next chunk is refined while this one is upscaled, in a thread that
        also draws from `frames`, up to a chunk ahead.
        """
        self._meter.expect(start, stop, num_frames)
        grid = self.timeline.grid
        refine = partial(self._refine, self._refiner) if self._refiner else None
        beside: Beside | None = None
        if grid and not self._in_turns:
            beside = partial(ahead, depth=grid.stride, stop=self._over)
        restored = restore_frames(
            *(frames, start, stop, refine, self.timeline, self._sr, self.clock),
            *(beside, self._place),
        )
        with named_out_of_memory(), closing(restored):
            for frame in restored:
                with self._telling:
                    self._tell(self._meter.frame())
                yield frame

    def _refine(self, refiner: Refiner, part: Tensor, chunk: Chunk) -> Tensor:
        def on_step(info: StepInfo) -> None:
            if self._over.is_set():
                raise Interrupted("the frames of this chunk are no more asked for")
            with self._telling:
                self._tell(self._meter.step(info.step, info.num_steps, chunk))

        return refiner(part, chunk, on_step)

    def _tell(self, progress: Progress) -> None:
        if self._cancel is not None and self._cancel():
            raise Interrupted("cancelled")
        if self._on_progress is not None:
            self._on_progress(progress)

    def report(self) -> dict[str, Any]:
        """Settings, plan, evaluations made and saved, seconds by stage and when, memory, machine,
        versions: plain data."""
        guidance = self._backbone and asdict(self.config.dtg(self._backbone.facts.defaults))
        return {
            "settings": asdict(self.config),
            "guidance": guidance,
            "weights": {
                name: report.weights(getattr(self.config, name), name)
                for name in ("backbone", "sr")
            },
            "plan": describe(self.plan) if self.plan else None,
            "shots": list(self.timeline.shots),
            **(self._refiner.describe() if self._refiner else NOTHING_EVALUATED),
            "seconds": self.clock.describe(),
            "timeline": self.clock.timeline(),
            "overlap": self.clock.overlap() | {"in_turns": self._in_turns},
            "peak_memory_bytes": report.peak_memory(),
            "machine": report.machine(self._device),
            "versions": report.versions(),
        }


class OnStream:
    """A super-resolver on a stream of its own, so that it does not queue behind the refinement.

    Frames on the device itself stay in the queue of what made them.
    """

    def __init__(self, sr: SuperResolver, device: torch.device):
        self.facts, self._sr = sr.facts, sr
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        if self._stream is not None:  # the weights may still be on their way
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def upscale(self, frames: Tensor) -> Tensor:
        """See `SuperResolver.upscale`."""
        with nullcontext() if frames.is_cuda else torch.cuda.stream(self._stream):
            return self._sr.upscale(frames)


def why_in_turns(
    plan: Plan | None, sr: SuperResolver | None, device: torch.device, size: tuple[int, int]
) -> list[str]:
    """Why frames of `size` are not upscaled while the next chunk is refined; empty: they are."""
    if plan is None or sr is None:
        return ["there is one stage"]
    if device.type == "cpu":  # either stage keeps all the threads busy that it was given
        return ["both stages would share the processor"]
    needed = plan.memory.device + upscale_memory(sr.facts, *size, device.type)
    has = memory_size(device)
    if has is not None and needed > has:
        return [f"both stages need {needed} bytes of memory at once, of {has}"]
    return []
