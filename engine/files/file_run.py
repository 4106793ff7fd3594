"""One clip from file to file: read, restored, written part by part, gone on with after a break."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from .. import report
from ..config import RestoreConfig
from ..devices import free_memory, named_out_of_memory
from ..errors import BeyondEnd, ConfigError, OutOfMemory
from ..media import Reader, Writer
from ..overlap import ahead, behind
from ..plan import Plan
from ..run import Cancel, OnProgress, Run
from ..shots import shots_of
from ..timeline import Timeline
from ..types import ClipInfo, Progress
from .job import Job
from .journal import COMPLETE, Journal

log = logging.getLogger("dtg_restore")

# Facts of a journal: the shots; what was made smaller, and from which frame on.
SHOTS, LESS_MEMORY = "shots", "less_memory"


class Restores(Protocol):
    """What a run needs of a `Restorer`; see there."""

    @property
    def config(self) -> RestoreConfig: ...

    @property
    def scale(self) -> int: ...

    def plan(self, height: int, width: int) -> Plan | None: ...

    def run(
        self,
        size: tuple[int, int],
        shots: tuple[int, ...] | None,
        on_progress: OnProgress | None,
        cancel: Cancel | None,
        clock: report.Clock | None,
    ) -> Run: ...

    def smaller(
        self, stage: str, tile: tuple[int, int] | None, size: tuple[int, int]
    ) -> Restores | None: ...


def restore_file(
    restorer: Restores, job: Job, on_progress: OnProgress | None, cancel: Cancel | None
) -> dict[str, Any]:
    """See `Restorer.restore_file`."""
    info = job.check()
    key = job.key(restorer.config)
    with Journal.open(job.state, job.target, key, job.parts_in, job.resume) as journal:
        job.check_target(bool(journal.facts.get(COMPLETE)))
        resumed = journal.num_frames
        if resumed:
            log.warning("%s: going on behind %d finished frames", job.target, resumed)
        run, writer = _FileRun(restorer, job, info, journal, on_progress, cancel).whole()
        journal.finish()
    return run.report() | {
        "input": {"path": job.source, "sha256": report.sha256(job.source)},
        "output": {
            "path": job.target,
            "sha256": report.sha256(job.target),
            "width": writer.width,
            "height": writer.height,
        },
        "frames": {"first": job.start, "count": writer.num_frames},
        "resumed_frames": resumed,
        "less_memory": journal.facts.get(LESS_MEMORY),
    }


@dataclass(frozen=True)
class _FileRun:
    restorer: Restores
    job: Job
    info: ClipInfo
    journal: Journal
    on_progress: OnProgress | None
    cancel: Cancel | None
    clock: report.Clock = field(default_factory=report.Clock)

    def whole(self) -> tuple[Run, Writer]:
        """Go on from the last finished part to the end; once with less memory where it runs out."""
        known = self.journal.facts.get(LESS_MEMORY)
        if known and (restorer := self._smaller(known)):
            return replace(self, restorer=restorer)._go_on()
        try:
            return self._go_on()
        except OutOfMemory as error:
            smaller = self._with_less_memory(error)
            if smaller is None:
                raise
        # The error is gone by now, and with it what its frames held.
        free_memory()
        return smaller._go_on()

    def _go_on(self) -> tuple[Run, Writer]:
        journal, scale = self.journal, self.restorer.scale
        state = journal.left, journal.folder, journal.parts
        with self.job.open_writer(self.info, scale, *state) as writer:
            journal.begin(self.job.numbers if self.job.pictures else None)
            run = self._begin()
            if not journal.facts.get(COMPLETE):
                self._write_frames(run, writer)
                self._end_part(writer)
                journal.note(**{COMPLETE: True})
        return run, writer

    def _begin(self) -> Run:
        size = self.info.height, self.info.width
        if SHOTS not in self.journal.facts:
            self.journal.note(**{SHOTS: self.clock.call("shots", self._find_shots)})
        done = self.journal.num_frames
        on_progress = self.on_progress and partial(_tell_behind, done, self.on_progress)
        shots = tuple(self.journal.facts[SHOTS])
        with named_out_of_memory():
            return self.restorer.run(size, shots, on_progress, self.cancel, self.clock)

    def _find_shots(self) -> tuple[int, ...]:
        plan = self.restorer.plan(self.info.height, self.info.width)
        if plan is None:  # every frame for itself
            return (0,)
        how, job = self.restorer.config.shots, self.job
        return shots_of(
            *(how, job.source, self.info, plan.grid, job.stop),
            *(self.on_progress, self.cancel, job.color_space),
        )

    def _write_frames(self, run: Run, writer: Writer) -> None:
        """Those that no part has yet."""
        start = self.job.start + writer.num_frames
        try:
            self._restore(run, writer, start)
        except BeyondEnd:  # the part before it was the last
            log.debug("%s has no frames from %d on", self.job.source, start)
        if writer.num_frames == 0:
            raise BeyondEnd(f"{self.job.source} ends before frame {start}")

    def _restore(self, run: Run, writer: Writer, start: int) -> None:
        stops = (self.job.stop, self.info.readable)
        if any(stop is not None and start >= stop for stop in stops):
            raise BeyondEnd
        first = run.timeline.first_frame(start)
        with self.job.open_reader(first, self.info.readable) as reader:
            decoded = ahead(run.clock.timed("decode", reader))
            put = partial(self._put, run.timeline, reader, writer)
            encode = partial(run.clock.call, "encode", put)
            with closing(decoded), behind(encode) as write:
                for frame in run.frames(decoded, start, self.job.stop, self.info.num_frames):
                    write(frame)

    def _put(self, timeline: Timeline, reader: Reader, writer: Writer, frame: Tensor) -> None:
        index = self.job.start + writer.num_frames
        writer.write(frame, reader.take_note(index))
        # A picture is whole by itself; in a video ends of parts are seen.
        if self.job.pictures or timeline.part_end(index) == index + 1:
            self._end_part(writer)

    def _end_part(self, writer: Writer) -> None:
        if part := writer.end_part():
            self.journal.add(part)

    def _with_less_memory(self, error: OutOfMemory) -> _FileRun | None:
        """The same on smaller tiles of the stage that failed; None where they cannot be."""
        first = self.job.start + self.journal.num_frames
        change = {"stage": error.stage, "tile": error.suggested_tile, "first": first}
        try:
            restorer = self._smaller(change)
        except ConfigError:
            restorer = None
        if restorer is None:
            return None
        self.journal.note(**{LESS_MEMORY: change})
        tiles = "{}x{}".format(*error.suggested_tile) if error.suggested_tile else "half the side"
        log.warning("%s: the run goes on from frame %d with tiles of %s", error, first, tiles)
        return replace(self, restorer=restorer)

    def _smaller(self, change: Mapping[str, Any]) -> Restores | None:
        size = self.info.height, self.info.width
        return self.restorer.smaller(
            change["stage"], change["tile"] and tuple(change["tile"]), size
        )


def _tell_behind(done: int, on_progress: OnProgress, progress: Progress) -> None:
    """Progress behind `done` frames of an earlier run."""
    count, share, total = progress.num_frames, progress.fraction, progress.total
    if progress.stage == "restore":
        total = None if total is None else total + done
        progress = progress._replace(done=progress.done + done, total=total)
    if count is not None:
        share = None if share is None else (done + share * count) / (done + count)
        count += done
    on_progress(progress._replace(frames=progress.frames + done, num_frames=count, fraction=share))
