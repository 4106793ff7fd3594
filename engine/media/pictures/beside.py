"""What a frame has beside its colours, brought to the size of the restored frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .spec import Window


def resized(planes: Tensor, size: tuple[int, int], smooth: bool) -> Tensor:
    """Planes (C, H, W) at `size` (height, width): bilinear or nearest; as they are at their own.

    NaN and infinity do not spread: where the nearest sample is one, so is the result.
    """
    if planes.shape[1:] == size:
        return planes
    batch = planes.float()[None]
    nearest = interpolate(batch, size, mode="nearest-exact")[0]
    if not smooth:
        return nearest
    finite = batch.nan_to_num(0, 0, 0)
    mixed = interpolate(finite, size, mode="bilinear", align_corners=False)[0]
    return torch.where(nearest.isfinite(), mixed, nearest)


def is_smooth(name: str, plane: Tensor, alpha: str) -> bool:
    """Whether a channel may be mixed between pixels: alpha, and colours of other layers.

    Depth, vectors and identifiers may not.  Half precision tells colours from the hashes of
    Cryptomatte, whose channels have the names of colours.
    """
    layered = name.rpartition(".")[2] in ("R", "G", "B", "A")
    return name == alpha or (layered and plane.dtype == torch.float16)


def outside(samples: Tensor, top: float) -> Tensor:
    """Where samples are not in [0, top], the range that networks see; NaN is outside."""
    return ~((samples >= 0) & (samples <= top))


def restored(colours: Tensor, beyond: Tensor | None, top: float) -> Tensor:
    """Colours (C, H, W) with the samples of the input where those lay outside of [0, top]."""
    if beyond is None:
        return colours
    given = resized(beyond, (colours.shape[1], colours.shape[2]), smooth=True).float()
    return torch.where(outside(given, top), given, colours)


def placed(planes: Tensor, window: Window, canvas: Window) -> Tensor:
    """Planes (C, h, w) of a data window on the canvas that a clip has; 0 around it."""
    if window == canvas:
        return planes
    on_canvas = planes.new_zeros(planes.shape[0], canvas.height, canvas.width)
    y, x = window.y - canvas.y, window.x - canvas.x
    on_canvas[:, y : y + window.height, x : x + window.width] = planes
    return on_canvas


def scaled(window: Window, canvas: Window, height: int, width: int) -> Window:
    """A window on a canvas that became `height` by `width`, whole pixels."""
    y0, y1 = (round(v * height / canvas.height) for v in (window.y, window.y + window.height))
    x0, x1 = (round(v * width / canvas.width) for v in (window.x, window.x + window.width))
    return Window(x0, y0, x1 - x0, y1 - y0)
