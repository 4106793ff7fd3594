"""Video files, encoded in a stream through PyAV, part by part."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import torch

from ...disk import reason
from ...errors import ConfigError, EngineError, InputError
from ...types import HDR, ColourTags, FrameNote, Part
from ..atomic import AtomicFile, check_target, hidden_name
from ..base import Writer
from ..carried.cargo import Cargo, Span, survey
from ..carried.carry import StreamCopy
from ..pictures.tone import TOP, to_curve
from .assembly import assemble
from .encoders import ENCODERS, PLAIN, encoder_options, muxer_for, pixel_format
from .encoding import Encoding
from .packets import SUFFIX
from .part_writer import PartWriter

log = logging.getLogger("dtg_restore")


class VideoWriter(Writer):
    """One video stream and, where asked for, what the source has beside its own.

    Each part is encoded into a file of the workspace; they become the video at the end.
    """

    def __init__(
        self,
        path: str,
        *,
        width: int,
        height: int,
        fps: Fraction,
        colour: ColourTags,
        codec: str,
        crf: int | None,
        bit_depth: int,
        chroma: str | None,
        hdr: HDR | None,
        pixel_aspect: Fraction,
        time_base: Fraction | None,
        carry_from: str | None,
        carry_range: Span | None,
        overwrite: bool,
        workspace: Path | None,
        finished: Sequence[Part] = (),
    ):
        super().__init__(path, width, height, finished)
        self._muxer = muxer_for(path, codec, chroma)
        self._encoding = Encoding(
            codec,
            width,
            height,
            Fraction(fps),
            pixel_format(codec, width, height, bit_depth, chroma),
            replace(colour, full_range=colour.full_range and ENCODERS[codec].full_range),
            pixel_aspect,
            encoder_options(codec, crf, width, hdr),
            hdr,
        )
        self._encoding.open()  # what it refuses is known before frames are made
        self._time_base = time_base if self._muxer not in PLAIN else None
        self._lost = list(self._what_is_lost(bit_depth, colour, time_base, hdr))
        self._latest: int | None = None  # tick of the last frame
        self._cargo: Cargo | None = None
        self._part: PartWriter | None = None
        self._is_own = workspace is None
        if workspace is None:
            check_target(Path(path), overwrite)
        self._workspace = workspace or _own_workspace(Path(path))
        try:
            self._check_finished()
            if carry_from is not None:
                self._cargo = survey(carry_from, self._muxer, carry_range or (0, None))
                if names := ", ".join(self._cargo.lost):
                    self._lost.append(f"{self._muxer} has no place for {names}: dropped")
            whole = self._workspace / f"whole{Path(path).suffix}"
            self._file = AtomicFile(path, overwrite, whole)
        except BaseException:
            self._tidy()
            raise

    def _check_finished(self) -> None:
        for part in self.parts:
            if file := part.damaged(self._workspace):
                raise EngineError(f"{file} of an earlier run is missing or damaged")

    def _write(self, frame: torch.Tensor, note: FrameNote | None) -> None:
        pts, duration = self._ticks(note)
        if self._latest is not None and pts <= self._latest:
            number = self.num_frames
            raise InputError(f"frame {number} of {self.path} is not shown after frame {number - 1}")
        self._latest = pts
        with self._system_errors():
            if self._part is None:
                if not self.parts and note is not None:
                    self._lost += _lost_of_picture(note)
                self._say_what_is_lost()
                self._part = PartWriter(self._encoding, self._workspace / self._part_name())
            self._part.write(frame, pts, duration)

    def _ticks(self, note: FrameNote | None) -> tuple[int, int]:
        """When the next frame is shown, and for how long; from an origin that is the clip's own."""
        if self._time_base is None:
            return self.num_frames, 1
        if note is None or note.time is None or note.duration is None:
            raise ConfigError("a clip whose rate varies is written with the times of its frames")
        return round(note.time / self._time_base), round(note.duration / self._time_base)

    def _what_is_lost(
        self, bit_depth: int, colour: ColourTags, time_base: Fraction | None, hdr: HDR | None
    ) -> Iterator[str]:
        bits = av.VideoFormat(self._encoding.pix_fmt).components[0].bits
        if bits < min(bit_depth, 10):
            yield f"{self._encoding.codec} has {bits} bits here, the source has {bit_depth}"
        facts = {
            "the times of the frames": time_base is not None,
            "HDR metadata": hdr is not None,
            "primaries and transfer": (colour.primaries, colour.transfer) != (2, 2),
        }
        names = [name for name, is_there in facts.items() if is_there]
        if self._muxer in PLAIN and names:
            yield f"{self._muxer} has no place for {', '.join(names)}: dropped"

    def _say_what_is_lost(self) -> None:
        while self._lost:
            log.warning("%s: %s", self.path, self._lost.pop(0))

    def _part_name(self) -> str:
        return f"{self.parts[-1].stop if self.parts else 0:09d}{SUFFIX}"

    @contextlib.contextmanager
    def _system_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:  # a full disk and the like
            raise InputError(f"cannot write {self.path}: {reason(error)}") from None

    def _end_part(self) -> tuple[tuple[str, int], ...]:
        assert self._part is not None
        with self._system_errors():
            size = self._part.finish()
        self._part = None
        return ((self._part_name(), size),)

    def commit(self) -> None:
        try:
            self.end_part()
            with self._system_errors():
                assemble(
                    [self._workspace / name for part in self.parts for name, _ in part.files],
                    self._file.path,
                    muxer=self._muxer,
                    encoding=self._encoding,
                    time_base=self._time_base or 1 / self._encoding.fps,
                    carry=partial(StreamCopy, self._cargo) if self._cargo else None,
                )
            self._file.commit()
        except BaseException:
            self.abort()
            raise
        self._tidy()

    def abort(self) -> None:
        if self._part is not None:
            self._part.abort()
            self._part = None
        self._file.abort()
        self._tidy()

    def _tidy(self) -> None:
        """A workspace of the caller is the caller's."""
        if self._is_own:
            shutil.rmtree(self._workspace, ignore_errors=True)


def _lost_of_picture(note: FrameNote) -> Iterator[str]:
    if note.linear:
        white = float(to_curve(torch.tensor(1.0)))
        yield (
            "linear light is written under the curve that the models see, which ends at "
            f"{TOP:.1f}: white is {white:.0%} of the video's"
        )
    if note.channels:
        yield f"a video has no place for channels {', '.join(note.channels)}: left out"


def _own_workspace(target: Path) -> Path:
    folder = hidden_name(target, "")
    try:
        folder.mkdir()
    except OSError as error:
        raise InputError(f"cannot write {target}: {reason(error)}") from None
    return folder
