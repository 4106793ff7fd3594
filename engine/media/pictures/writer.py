"""Writing sequences of still pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ...disk import reason
from ...errors import ConfigError, InputError, InTheWay
from ...types import ColourTags, FrameNote, Numbers, Part
from ..atomic import AtomicFile
from ..base import Writer
from ..paths import is_sequence_input, output_pattern
from .colour_spaces import check_space
from .files import write_picture
from .samples import Samples

_PQ_OR_HLG = (16, 18)
_NO_NOTE = FrameNote(0)


class ImageWriter(Writer):
    """Files of the pattern's type, each of them written atomically.

    Pictures that were made of pictures keep their numbers; others count up from `first_number`.
    Without `colour_space` samples are stored as those of the source were: EXR, and TIFF of linear
    light, hold linear light, the others display code.

    Parameters
    ----------
    source : clip that the frames are made of: a folder gets pictures of its type.
    last_number : no picture behind it will be written; None = unknown.
    replaced : numbers of pictures that are replaced though `overwrite` is off.
    """

    def __init__(
        self,
        path: str,
        *,
        width: int,
        height: int,
        colour: ColourTags,
        bit_depth: int,
        first_number: int,
        overwrite: bool,
        last_number: int | None = None,
        replaced: Sequence[Numbers] = (),
        colour_space: str | None = None,
        source: str | None = None,
        finished: Sequence[Part] = (),
    ):
        super().__init__(path, width, height, finished)
        self._pattern = output_pattern(path, source)
        self._bit_depth, self._first = bit_depth, first_number
        self._overwrite, self._replaced = overwrite, replaced
        self._coded = colour.transfer in _PQ_OR_HLG
        self._space = colour_space
        self._names: list[str] = []  # of the pictures since the last part
        if colour_space is not None:
            check_space(colour_space)
        if self._coded and colour_space is not None and not _is_pictures(source):
            raise ConfigError(f"{source} is PQ or HLG: it cannot be written as {colour_space}")
        try:
            self._pattern.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self._pattern.folder}: {reason(error)}") from None
        self._check_target(last_number)

    def _write(self, frame: Tensor, note: FrameNote | None) -> None:
        note = note or _NO_NOTE
        made_of = note.number if "spec" in note.metadata else self._first + self.num_frames
        file = self._pattern.file(made_of)
        samples = Samples(
            frame, note, self._pattern.suffix, self._bit_depth, self._space, self._coded
        )
        self._warn_of_loss(samples)
        spec, planes = samples.for_file()
        write_picture(AtomicFile(file, self._is_replaced(made_of)), spec, planes)
        self._names.append(file.name)

    def _end_part(self) -> tuple[tuple[str, int], ...]:
        names, self._names = self._names, []
        return tuple((name, (self._pattern.folder / name).stat().st_size) for name in names)

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        """Pictures that are complete stay."""

    def _warn_of_loss(self, samples: Samples) -> None:
        if self._coded and samples.target.floats and not samples.note.linear:
            self._once(
                f"{self.path}: code values of PQ or HLG are written as they are: this is no linear "
                "light"
            )
        if samples.is_toned:
            self._once(
                f"{self.path}: linear light is written under the curve that the models see; "
                "name an output colour space for another way"
            )
        if samples.lost():
            self._once(
                f"{self.path}: channels {', '.join(samples.lost())} are left out: "
                f"{self._pattern.suffix} has no place for them"
            )

    # -- what stands in the folder ----------------------------------------------------------------

    def _check_target(self, last_number: int | None) -> None:
        """InputError now rather than after the first chunk: for pictures in the way, and where
        nothing can be written."""
        pattern = self._pattern
        own = {name for part in self.parts for name, _ in part.files}
        last = math.inf if last_number is None else last_number
        for found in sorted(file.name for file in pattern.folder.iterdir()):
            number = pattern.number(found)
            if number is None or not self._first <= number <= last:
                continue
            if not self._is_replaced(number) and found not in own:
                raise InTheWay(f"{pattern.folder / found} exists already, and overwrite is off")
        AtomicFile(pattern.file(self._first), overwrite=True).abort()

    def _is_replaced(self, number: int) -> bool:
        return self._overwrite or any(
            first <= number and (last is None or number <= last) for first, last in self._replaced
        )


def _is_pictures(source: str | None) -> bool:
    return source is not None and is_sequence_input(source)
