"""Which frames go from where to where, and what must be right with the files before they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import RestoreConfig
from ..errors import ConfigError, InputError
from ..media import Reader, Writer, open_reader, open_writer, probe, would_replace
from ..media.atomic import check_target
from ..media.carried.cargo import Span
from ..media.paths import (
    SequencePattern,
    is_sequence_input,
    is_sequence_output,
    output_pattern,
    remove_leftovers,
)
from ..sr import sr_facts
from ..types import ClipInfo, Numbers, Part
from .journal import claimed, finished_frames, is_complete, numbers_left, sweep
from .run_key import run_key


@dataclass(frozen=True)
class Job:
    """Which frames go from where to where.

    Parameters
    ----------
    source, target : see `media.open_reader` and `media.open_writer`.
    start, stop : the frames `start .. stop - 1` of the source; None = to its end.
    output : how they are written, by names of `open_writer`.
    color_space, output_color_space : of pictures, by name.
    overwrite : what exists under the target's name is replaced.
    resume : what an unfinished run of the same settings has left is gone on with.
    """

    source: str
    target: str
    start: int = 0
    stop: int | None = None
    output: Mapping[str, Any] = field(default_factory=dict)
    color_space: str | None = None
    output_color_space: str | None = None
    overwrite: bool = False
    resume: bool = True

    @cached_property
    def pictures(self) -> SequencePattern | None:
        """Names of the pictures that are written; None for a video."""
        is_sequence = is_sequence_output(self.target)
        return output_pattern(self.target, self.source) if is_sequence else None

    @property
    def state(self) -> Path:
        """The folder of the journal.  Workers that share a sequence have one for each range."""
        if self.pictures is None:
            return Path(self.target).with_name(f".{Path(self.target).name}.resume")
        part = "" if (self.start, self.stop) == (0, None) else f".{self.start}-{self.stop}"
        names = f"{self.pictures.prefix}{'#' * self.pictures.digits}{self.pictures.suffix}"
        return self.pictures.folder / f".{names}{part}.resume"

    @property
    def parts_in(self) -> Path:
        """The folder of the files of finished parts."""
        return self.pictures.folder if self.pictures else self.state

    def finished(self) -> int:
        """How many frames an unfinished run has left."""
        return finished_frames(self.state)

    def key(self, config: RestoreConfig) -> dict[str, Any]:
        """Of the run; see `run_key`."""
        spaces = {n: getattr(self, n) for n in ("color_space", "output_color_space")}
        suffix = self.pictures.suffix if self.pictures else Path(self.target).suffix
        output = {**self.output, **spaces, "the output's type": suffix}
        return run_key(config, self.source, (self.start, self.stop), output)

    def open_reader(self, start: int, stop: int | None) -> Reader:
        return open_reader(self.source, start, stop, self.color_space)

    @cached_property
    def numbers(self) -> Numbers:
        """Of the first frame and of the last, as far as it is known, in the source's numbering."""
        if not is_sequence_input(self.source):
            return self.start, None if self.stop is None else self.stop - 1
        with self.open_reader(self.start, self.stop) as reader:
            return reader.first_number, reader.last_number

    def check(self) -> ClipInfo:
        """Facts of the source.  InputError or ConfigError where the files do not serve."""
        if not self.target:
            raise InputError("the path to write to is empty")
        if would_replace(self.target, self.source):
            raise ConfigError(f"input and output are the same: {self.source}")
        if self.pictures is None:
            sweep(self.state, self.target)
            self.check_target(is_complete(self.state))
        return probe(self.source, self.stop, self.color_space)

    def check_target(self, complete: bool) -> None:
        """InputError where a file is in the way of a video.

        `complete`: all frames are finished, so it may be what a process has written that was killed
        just then; the writer compares the two.
        """
        if self.pictures is None:
            check_target(Path(self.target), self.overwrite or complete)

    def open_writer(
        self,
        info: ClipInfo,
        scale: int,
        left: Sequence[Numbers],
        workspace: Path | None = None,
        parts: Sequence[Part] = (),
    ) -> Writer:
        """`left`: numbers of the pictures that unfinished runs may have left; else as
        `media.open_writer`."""
        first, last = self.numbers
        if self.pictures:
            remove_leftovers(self.pictures, first, last)
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
            carry_range=self._seconds(info),
            first_number=first,
            last_number=last,
            colour_space=self.output_color_space,
            overwrite=self.overwrite,
            replaced=left,
            workspace=workspace,
            finished=parts,
            **self.output,
        )

    def _seconds(self, info: ClipInfo) -> Span:
        """When the range begins and ends, on the timeline of the source."""
        start, stop = self.start, self.stop
        if info.time_base is None:
            return start / info.fps, None if stop is None else stop / info.fps
        with self.open_reader(0, info.readable) as reader:
            return reader.time_of(start), None if stop is None else reader.time_of(stop)


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
        job.open_writer(info, scale, numbers_left(job.state), job.state).abort()
