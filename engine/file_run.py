"""One clip from file to file: read, restored, written part by part, gone on with after a break."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import report
from .config import RestoreConfig
from .devices import free_memory
from .errors import BeyondEnd, ConfigError, InputError, OutOfMemory
from .journal import Journal, claimed, finished_frames, was_begun
from .media import Reader, Writer, open_reader, open_writer, probe, would_replace
from .media.atomic import check_target
from .media.paths import is_sequence_input, is_sequence_output, output_pattern
from .overlap import ahead, behind
from .run import Cancel, OnProgress, Run
from .run_key import run_key
from .sr import sr_facts
from .sr.frames import FrameSR
from .timeline import Timeline
from .types import ClipInfo, Progress

if TYPE_CHECKING:
    from .restorer import Restorer

log = logging.getLogger("dtg_restore")

# Facts of a journal: what was made smaller, and from which frame on; all frames are finished.
LESS_MEMORY, COMPLETE = "less_memory", "complete"


@dataclass(frozen=True)
class Job:
    """Which frames go from where to where.

    Parameters
    ----------
    source, target : see `media.open_reader` and `media.open_writer`.
    start, stop : the frames `start .. stop - 1` of the source; None = to its end.
    output : how they are written, by names of `open_writer`.
    overwrite : what exists under the target's name is replaced.
    resume : what an unfinished run of the same settings has left is gone on with.
    """

    source: str
    target: str
    start: int = 0
    stop: int | None = None
    output: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = True

    @property
    def makes_pictures(self) -> bool:
        return is_sequence_output(self.target)

    @property
    def state(self) -> Path:
        """The folder of the journal.  Workers that share a sequence have one for each range."""
        if not self.makes_pictures:
            return Path(self.target).with_name(f".{Path(self.target).name}.resume")
        pattern = output_pattern(self.target)
        part = "" if (self.start, self.stop) == (0, None) else f".{self.start}-{self.stop}"
        name = f".{pattern.prefix}{'#' * pattern.digits}{pattern.suffix}{part}.resume"
        return pattern.folder / name

    @property
    def parts_in(self) -> Path:
        """The folder of the files of finished parts."""
        return output_pattern(self.target).folder if self.makes_pictures else self.state

    def finished(self) -> int:
        """How many frames an unfinished run has left."""
        return finished_frames(self.state)

    def first_number(self) -> int:
        """The number of the first frame in the source's own numbering."""
        if not is_sequence_input(self.source):
            return self.start
        with open_reader(self.source, self.start, self.stop) as reader:
            return reader.first_number

    def check(self) -> ClipInfo:
        """Facts of the source.  InputError or ConfigError where the files do not serve."""
        if not self.target:
            raise InputError("the path to write to is empty")
        if would_replace(self.target, self.source):
            raise ConfigError(f"input and output are the same: {self.source}")
        if not self.makes_pictures:
            check_target(Path(self.target), self.overwrite)
        return probe(self.source, self.stop)

    def open_writer(
        self, info: ClipInfo, scale: int, begun: bool, journal: Journal | None = None
    ) -> Writer:
        """`begun`: pictures that are there were left by an unfinished run."""
        seconds = (self.start / info.fps, None if self.stop is None else self.stop / info.fps)
        return open_writer(
            self.target,
            width=info.width * scale,
            height=info.height * scale,
            fps=info.fps,
            colour=info.colour,
            bit_depth=info.bit_depth,
            time_base=info.time_base,
            hdr=info.hdr,
            pixel_aspect=info.pixel_aspect,
            carry_from=self.source,
            carry_range=seconds,
            first_number=self.first_number(),
            overwrite=self.overwrite or (begun and self.makes_pictures),
            workspace=journal.folder if journal else None,
            finished=journal.parts if journal else (),
            **self.output,
        )


def frame_range(frames: tuple[int, int] | None) -> tuple[int, int | None]:
    """An inclusive range as start and stop."""
    if frames is None:
        return 0, None
    first, last = frames
    if first < 0 or last < first:
        raise ConfigError(f"frame range {first}-{last} is empty or negative")
    return first, last + 1


def check_files(job: Job, config: RestoreConfig) -> None:
    """Find what is wrong with the files of a run before models are loaded for it."""
    info = job.check()
    scale = 1 if config.sr == "none" else sr_facts(config.sr).scale
    with claimed(job.state, job.target):
        job.open_writer(info, scale, was_begun(job.state)).abort()


def restore_file(
    restorer: Restorer, job: Job, on_progress: OnProgress | None, cancel: Cancel | None
) -> dict[str, Any]:
    """See `Restorer.restore_file`."""
    info = job.check()
    output = {**job.output, "the output's kind": _kind(job)}
    key = run_key(restorer.config, job.source, (job.start, job.stop), output)
    with Journal.open(job.state, job.target, key, job.parts_in, job.resume) as journal:
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
    restorer: Restorer
    job: Job
    info: ClipInfo
    journal: Journal
    on_progress: OnProgress | None
    cancel: Cancel | None

    def whole(self) -> tuple[Run, Writer]:
        """Go on from the last finished part to the end; once with less memory where it runs out."""
        known = self.journal.facts.get(LESS_MEMORY)
        if known and (restorer := _smaller(self.restorer, known, self.info)):
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
        size, done = (self.info.height, self.info.width), self.journal.num_frames
        on_progress = self.on_progress and partial(_tell_behind, done, self.on_progress)
        run = self.restorer.run(size, on_progress, self.cancel)
        scale = self.restorer.scale
        with self.job.open_writer(self.info, scale, self.journal.begun, self.journal) as writer:
            self.journal.begin()
            if not self.journal.facts.get(COMPLETE):
                self._write_frames(run, writer)
                self._end_part(writer)
                self.journal.note(**{COMPLETE: True})
        return run, writer

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
        timeline = Timeline(run.plan.grid if run.plan else None)
        first = timeline.first_frame(start)
        with open_reader(self.job.source, first, self.info.readable) as reader:
            decoded = ahead(run.clock.timed("decode", reader))
            put = partial(self._put, timeline, reader, writer)
            encode = partial(run.clock.call, "encode", put)
            with closing(decoded), behind(encode) as write:
                for frame in run.frames(decoded, start, self.job.stop, self.info.num_frames):
                    write(frame)

    def _put(self, timeline: Timeline, reader: Reader, writer: Writer, frame: Tensor) -> None:
        index = self.job.start + writer.num_frames
        writer.write(frame, reader.take_note(index))
        # A picture is whole by itself; in a video ends of parts are seen.
        if self.job.makes_pictures or timeline.part_end(index) == index + 1:
            self._end_part(writer)

    def _end_part(self, writer: Writer) -> None:
        if part := writer.end_part():
            self.journal.add(part)

    def _with_less_memory(self, error: OutOfMemory) -> _FileRun | None:
        """The same on smaller tiles of the stage that failed; None where they cannot be."""
        first = self.job.start + self.journal.num_frames
        change = {"stage": error.stage, "tile": error.suggested_tile, "first": first}
        try:
            restorer = _smaller(self.restorer, change, self.info)
        except ConfigError:
            restorer = None
        if restorer is None:
            return None
        self.journal.note(**{LESS_MEMORY: change})
        tiles = "{}x{}".format(*error.suggested_tile) if error.suggested_tile else "half the side"
        log.warning("%s: the run goes on from frame %d with tiles of %s", error, first, tiles)
        return replace(self, restorer=restorer)


def _smaller(restorer: Restorer, change: Mapping[str, Any], info: ClipInfo) -> Restorer | None:
    """The restorer with what `change` says; ConfigError where no plan has such tiles."""
    size = info.height, info.width
    if change["stage"] == "upscale" and isinstance(restorer.sr, FrameSR):
        sr = restorer.sr.smaller(*size)
        return sr and replace(restorer, sr=sr)
    if change["tile"] is None:
        return None
    restorer = restorer.configure(tile=tuple(change["tile"]))
    restorer.plan(*size)
    return restorer


def _kind(job: Job) -> str:
    """How it is stored, by its name."""
    return output_pattern(job.target).suffix if job.makes_pictures else Path(job.target).suffix


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
