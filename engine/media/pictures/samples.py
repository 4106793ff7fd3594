"""From a restored frame and its note to what a picture file stores."""

from __future__ import annotations

from dataclasses import dataclass

import OpenImageIO as oiio
import torch
from torch import Tensor

from ...types import FrameNote
from .beside import is_smooth, resized, restored, scaled
from .colour_spaces import convert, is_scene_light, model_space, same_space
from .spec import (
    Target,
    Window,
    alpha_name,
    is_straight,
    layout,
    new_spec,
    target_for,
    windows,
)
from .tone import TOP, decode, from_curve, to_curve

_RGB = ("R", "G", "B")


@dataclass(frozen=True)
class Samples:
    """The samples and the header of one picture file.

    Parameters
    ----------
    frame : RGB (3, H, W) in [0, 1], as the models gave it.
    note : of the source's frame; its metadata are those of `reader.py`, or empty.
    suffix, bit_depth : of the file, and of the source.
    space : name of the colour space to store; None = the source's.
    coded : frames without a note of linear light are no sRGB, and stay as they are.
    """

    frame: Tensor
    note: FrameNote
    suffix: str
    bit_depth: int
    space: str | None = None
    coded: bool = False

    @property
    def source(self) -> oiio.ImageSpec | None:
        return self.note.metadata.get("spec")

    @property
    def colours(self) -> tuple[str, ...]:
        """Names of the source's colours: three, or one that is grey."""
        return self.note.metadata.get("colours", _RGB)

    @property
    def target(self) -> Target:
        space = self._named_space
        floats = self.note.linear if space is None else is_scene_light(space)
        return target_for(self.suffix, self.bit_depth, floats)

    @property
    def is_toned(self) -> bool:
        """Whether the curve stays on the colours, since integers are to hold linear light."""
        return self.note.linear and self._named_space is None and not self.target.floats

    def lost(self) -> list[str]:
        """Channels that the file has no place for."""
        return [name for name in self.note.channels if name not in self._names]

    def for_file(self) -> tuple[oiio.ImageSpec, list[Tensor]]:
        """Header and planes (h, w) of the file."""
        whole, data, display = self._windows()
        spec = new_spec(
            self.source,
            self.target,
            self._names,
            self._rgb,
            data=data,
            display=display,
            same_colours=self._means_the_same(),
            straight=self._is_straight,
        )
        planes = self._planes()
        y, x = data.y - whole.y, data.x - whole.x
        inside = slice(y, y + data.height), slice(x, x + data.width)
        return spec, [planes[name][inside] for name in self._names]

    @property
    def _named_space(self) -> str | None:
        return self.space or self.note.metadata.get("space")

    @property
    def _rgb(self) -> tuple[str, ...]:
        return self.colours if len(self.colours) == 3 else _RGB

    @property
    def _names(self) -> list[str]:
        held = (*self._rgb, *self.note.channels)
        return [name for name in layout(self.source, self.target, self.colours) if name in held]

    @property
    def _is_straight(self) -> bool:
        """Whether the file's colours are not multiplied by alpha: a rule of EXR and of PNG."""
        return {".exr": False, ".png": True}.get(self.target.suffix, is_straight(self.source))

    def _planes(self) -> dict[str, Tensor]:
        alpha = alpha_name(self.colours)
        size = self.frame.shape[1], self.frame.shape[2]
        beside = {
            name: resized(plane[None], size, is_smooth(name, plane, alpha))[0]
            for name, plane in self.note.channels.items()
            if name in self._names
        }
        rgb = self._stored(beside.get(alpha))
        return dict(zip(self._rgb, rgb, strict=True)) | beside

    def _stored(self, alpha: Tensor | None) -> Tensor:
        """Colours (3, H, W) in the space of the file and by its rule for alpha."""
        linear, was_straight = self.note.linear, is_straight(self.source)
        x = self.frame.clamp(0, 1)
        for c, plane in enumerate(x):  # one by one, to take less memory
            beyond = None if self.note.beyond is None else self.note.beyond[c : c + 1]
            light = (from_curve(plane) if linear else plane)[None]
            plane.copy_(restored(light, beyond, TOP if linear else 1.0)[0])
        if alpha is not None and self._is_straight and not was_straight:
            x = torch.where(alpha > 0, x / alpha.float(), x)
        x = self._in_space(x)
        if alpha is not None and was_straight and not self._is_straight:
            x = x * alpha.float()
        return x

    def _in_space(self, x: Tensor) -> Tensor:
        """From linear light or display code of the models' primaries to what is stored."""
        linear, space = self.note.linear, self._named_space
        if space is not None:
            return convert(x, model_space(linear), space)
        if not self.target.floats:
            return to_curve(x) if linear else x
        return x if linear or self.coded else decode(x)

    def _means_the_same(self) -> bool:
        """Whether numbers of the file mean the colours that they mean in the source."""
        was, now = self.note.metadata.get("space"), self._named_space
        if was is None or now is None:
            return was is now and self.note.linear == self.target.floats
        return same_space(was, now)

    def _windows(self) -> tuple[Window, Window, Window]:
        """The canvas, the data and the display window of the file."""
        height, width = self.frame.shape[1:]
        whole = Window(0, 0, width, height)
        if self.source is None or self.suffix.lower() != ".exr":
            return whole, whole, whole
        canvas = self.note.metadata["canvas"]
        of_source = (canvas, *windows(self.source))
        whole, data, display = (scaled(w, canvas, height, width) for w in of_source)
        return whole, data, display
