"""Sequences of still pictures: one file a frame.

Floating-point samples, and those of a colour space that holds more light than white, are linear
light: the models see it under the curve of `tone.py`, and samples beyond its range go past them.
The metadata of a picture's note are its `spec` (OpenImageIO's, upright), the names of the channels
that are its `colours`, its `canvas` (`Window`: data and display window together) and `space`, the
name that its colour space was given, or None.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import isfinite
from pathlib import Path

import OpenImageIO as oiio
import torch
from torch import Tensor

from ...errors import BeyondEnd, InputError
from ...types import ClipInfo, ColourTags, FrameNote
from ..base import Reader
from ..colour import default_matrix
from ..paths import list_sequence, parse_pattern, sequences_in
from .beside import outside, placed
from .colour_spaces import check_space, convert, is_scene_light, model_space
from .files import MAX_NUMBER, Picture, holds_floats, read_header, read_picture
from .spec import Window, bit_depth, colour_names, is_number, windows
from .tone import TOP, to_curve

log = logging.getLogger("dtg_restore")

# Most pictures carry no rate of their own.
DEFAULT_FPS = Fraction(24)
_SHOWN = 5  # gaps, and names


class ImageReader(Reader):
    """Pictures in the order of their numbers; `start` and `stop` count pictures from 0.

    `colour_space` names what the samples are; without it integers are display code and floating
    point is linear light, of the models' own primaries.
    """

    def __init__(
        self,
        path: str,
        start: int = 0,
        stop: int | None = None,
        colour_space: str | None = None,
    ):
        super().__init__(path, start, stop)
        if colour_space is not None:
            check_space(colour_space)
        self._space = colour_space
        self._files = list_sequence(path)
        if start >= len(self._files):
            raise BeyondEnd(f"{path} holds {len(self._files)} pictures, none from {start} on")
        self.first_number = self._files[start][0]
        self.last_number = self._files[start:stop][-1][0]
        first = self._files[0][1]
        spec = read_header(first)
        data, self._display = windows(spec)
        self._canvas = data.union(self._display)
        colours = colour_names(spec, str(first))
        self.info = self._describe(spec, colours)
        self._parts, self._colours = spec.get_int_attribute("oiio:subimages", 1), colours

    def close(self) -> None:
        pass

    def _frames(self) -> Iterator[Tensor]:
        self._warn_of_names()
        self._warn_of_gaps()
        self._warn_of_parts()
        chosen = self._files[self.start : self.stop]
        for index, (number, file) in enumerate(chosen, self.start):
            frame, note = self._frame(number, file)
            self._note(index, note)
            yield frame

    def _frame(self, number: int, file: Path) -> tuple[Tensor, FrameNote]:
        """The frame in [0, 1], and all else that the picture holds."""
        picture = read_picture(file)
        data = self._checked_window(file, picture.spec)
        colours = colour_names(picture.spec, str(file))
        self._warn_of_bits(file, bit_depth(picture.spec, colours))
        linear = self._is_linear(picture.spec)
        rgb = self._in_model_space(_colours(picture, colours), linear)
        rgb = placed(rgb, data, self._canvas)
        seen = rgb.float()
        away = outside(seen, TOP if linear else 1.0)
        if is_beyond := bool(away.any()):
            self._warn_of_nan(file, seen[away])
            seen = seen.nan_to_num(0.0, TOP, 0.0)
        note = FrameNote(
            number,
            channels={
                name: placed(plane[None], data, self._canvas)[0]
                for name, plane in picture.planes.items()
                if name not in colours and self._can_be_written(file, picture, name)
            },
            linear=linear,
            beyond=rgb if is_beyond else None,
            metadata={
                "spec": picture.spec,
                "colours": colours,
                "canvas": self._canvas,
                "space": self._space,
            },
        )
        if linear:
            for plane in seen:  # one by one: the curve takes several times the memory of its input
                plane.copy_(to_curve(plane))
        return seen.clamp_(0, 1), note

    def _is_linear(self, spec: oiio.ImageSpec) -> bool:
        return holds_floats(spec) if self._space is None else is_scene_light(self._space)

    def _in_model_space(self, rgb: Tensor, linear: bool) -> Tensor:
        if self._space is None:
            return rgb
        return convert(rgb.float(), self._space, model_space(linear))

    def _checked_window(self, file: Path, spec: oiio.ImageSpec) -> Window:
        """The data window; InputError where a picture is not of the first one's size."""
        data, display = windows(spec)
        if display != self._display or not self._canvas.holds(data):
            raise InputError(f"{file} is {data.union(display)}, the first picture {self._canvas}")
        return data

    def _describe(self, spec: oiio.ImageSpec, colours: Sequence[str]) -> ClipInfo:
        height = self._canvas.height
        cicp = spec.getattribute("CICP") or (2, 2)
        return ClipInfo(
            path=self.path,
            width=self._canvas.width,
            height=height,
            fps=_rate(spec),
            num_frames=len(self._files),
            bit_depth=bit_depth(spec, colours),
            colour=ColourTags(
                default_matrix(height), primaries=int(cicp[0]), transfer=int(cicp[1])
            ),
            kind="images",
            pixel_aspect=_pixel_aspect(spec),
            chroma="444",
            colour_space=self._space,
        )

    def _can_be_written(self, file: Path, picture: Picture, name: str) -> bool:
        whole = is_number(picture.spec, name)
        fits = not whole or float(picture.planes[name].max()) < MAX_NUMBER
        if not fits:
            self._once(
                f"{file}: channel {name} is left out: it holds numbers above {MAX_NUMBER}",
                f"left out: {name}",
            )
        return fits

    def _warn_of_names(self) -> None:
        names = [] if parse_pattern(self.path) else sequences_in(file for _, file in self._files)
        if len(names) > 1:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            log.warning(
                "%s: pictures of %d names are read as one sequence; a pattern chooses one: %s",
                *(self.path, len(names), shown),
            )

    def _warn_of_gaps(self) -> None:
        numbers = [number for number, _ in self._files]
        count = numbers[-1] - numbers[0] + 1 - len(numbers)
        if count == 0:
            return
        missing: list[str] = []
        for before, after in zip(numbers, numbers[1:], strict=False):
            room = _SHOWN - len(missing)
            missing += map(str, range(before + 1, min(after, before + 1 + room)))
        more = ", ..." if count > len(missing) else ""
        log.warning(
            "%s: %d %s missing between its pictures: %s%s",
            *(self.path, count, "number is" if count == 1 else "numbers are"),
            *(", ".join(missing), more),
        )

    def _warn_of_parts(self) -> None:
        if self._parts > 1:
            log.warning(
                "%s: of the %d parts of a picture the first with colours is restored, the others "
                "are left out",
                *(self.path, self._parts),
            )
        if "." in self._colours[0]:
            log.warning("%s: the colours %s are restored", self.path, ", ".join(self._colours))

    def _warn_of_bits(self, file: Path, bits: int) -> None:
        if bits > self.info.bit_depth:
            self._once(
                f"{file} has {bits} bits, the first picture {self.info.bit_depth}: "
                "all are written as that one",
                "bits",
            )

    def _warn_of_nan(self, file: Path, away: Tensor) -> None:
        count = int((~away.isfinite()).sum())
        if count:
            self._once(
                f"{file}: {count} samples are NaN or infinite; such are given back as they are",
                "nan",
            )


def _colours(picture: Picture, names: Sequence[str]) -> Tensor:
    """(3, H, W), of the precision that the file has; grey is repeated."""
    planes = [picture.planes[name] for name in names]
    if len({plane.dtype for plane in planes}) > 1:
        planes = [plane.float() for plane in planes]
    return torch.stack(planes).expand(3, -1, -1).contiguous()


def _rate(spec: oiio.ImageSpec) -> Fraction:
    told = spec.getattribute("FramesPerSecond")
    is_rate = isinstance(told, tuple) and len(told) == 2 and min(told) > 0
    return Fraction(*told) if is_rate else DEFAULT_FPS


def _pixel_aspect(spec: oiio.ImageSpec) -> Fraction:
    told = spec.get_float_attribute("PixelAspectRatio", 1.0)
    return Fraction(told).limit_denominator(1000) if isfinite(told) and told > 0.01 else Fraction(1)
