"""What comes back of pictures of every type: written by the engine and read back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import OpenImageIO as oiio
import torch

from ..engine.media import open_reader, open_writer
from ..engine.media.pictures.tone import TOP
from ..engine.types import ColourTags, FrameNote
from .ramps import CHANNELS, WIDTH, error, ramps

Planes = dict[str, np.ndarray]

HEIGHT = 4
AUTHOR = "Somebody"


class Type(NamedTuple):
    """`bits` are those of the source; `floats` says that it is linear light."""

    suffix: str
    bits: int
    floats: bool = False

    @property
    def samples(self) -> str:
        if self.floats:
            return "float" if self.bits == 32 else "half"
        return f"{self.bits} bit"


TYPES = (
    *(Type(".png", 8), Type(".png", 16)),
    *(Type(".tif", 8), Type(".tif", 16), Type(".tif", 32, True)),
    *(Type(".exr", 16, True), Type(".exr", 32, True)),
    *(Type(".dpx", 10), Type(".dpx", 12), Type(".dpx", 16)),
    Type(".jpg", 8),
)


def pictures(folder: Path) -> list[dict[str, Any]]:
    """A row for every type of picture."""
    light, code = _light(folder), _code(folder)
    return [_measure(kind, light if kind.floats else code, folder) for kind in TYPES]


def _measure(kind: Type, source: Path, folder: Path) -> dict[str, Any]:
    """Ramps of display code or of light, and a copy of a picture that holds all there can be."""
    with open_reader(source) as reader:
        _write(
            folder / f"copy{kind.bits}.####{kind.suffix}", kind, list(reader), [reader.take_note(0)]
        )
    [copy] = folder.glob(f"copy{kind.bits}.*{kind.suffix}")
    before, after = _stored(source), _stored(copy)
    if kind.floats:
        values = [_relative(before[name], after[name]) for name in "RGB"]
    else:
        values = _code_errors(kind, folder)
    names = "A" if kind.floats else "RGBA"
    with open_reader(copy) as reader:
        bits = reader.info.bit_depth
    return {
        **{
            "suffix": kind.suffix,
            "samples": kind.samples,
            "bits_read": bits,
            "error": dict(zip(CHANNELS, values, strict=True)),
        },
        "beyond": kind.floats and all(_is_kept(before[name], after[name]) for name in "RGB"),
        "alpha": "A" in after and all(_is_near(before[n], after[n], kind) for n in names),
        "depth": "Z" in after and bool((before["Z"] == after["Z"]).all()),
        "author": _attribute(copy) == AUTHOR,
    }


def _code(folder: Path) -> Path:
    """16-bit PNG with alpha and an author."""
    path = folder / "code.0001.png"
    row = np.linspace(0, 65535, WIDTH).astype(np.uint16)
    pixels = np.stack([row, row[::-1], row // 2, row], -1)[None].repeat(HEIGHT, 0)
    _write_source(path, pixels, "RGBA", "uint16")
    return path


def _light(folder: Path) -> Path:
    """Float EXR: light from -0.5 to 50 on values that half holds too, alpha, depth, an author."""
    path = folder / "light.0001.exr"
    light = np.concatenate([np.linspace(-0.5, 0, 32), np.geomspace(1e-3, 50, WIDTH - 32)])
    row = light.astype(np.float16).astype(np.float32)
    beside = (np.linspace(0, 1, WIDTH).round(2), np.linspace(1, 1000, WIDTH))
    planes = (*(np.roll(row, shift) for shift in (0, 5, 9)), *beside)
    pixels = np.stack(planes, -1).astype(np.float16).astype(np.float32)[None].repeat(HEIGHT, 0)
    _write_source(path, pixels, "RGBAZ", "float")
    return path


def _write_source(path: Path, pixels: np.ndarray, channels: str, kind: str) -> None:
    spec = oiio.ImageSpec(WIDTH, HEIGHT, len(channels), kind)
    spec.channelnames, spec.alpha_channel = tuple(channels), 3
    spec.attribute("Artist", AUTHOR)
    picture = oiio.ImageBuf(spec)
    picture.set_pixels(oiio.ROI.All, np.ascontiguousarray(pixels))
    assert picture.write(str(path)), picture.geterror()


def _write(
    pattern: Path, kind: Type, frames: Sequence[torch.Tensor], notes: Sequence[FrameNote | None]
) -> None:
    with open_writer(
        pattern,
        width=WIDTH,
        height=HEIGHT,
        fps=Fraction(24),
        colour=ColourTags(),
        bit_depth=kind.bits,
    ) as writer:
        for frame, note in zip(frames, notes, strict=True):
            writer.write(frame, note)


def _code_errors(kind: Type, folder: Path) -> list[float]:
    """Of ramps of red, green, blue and grey, by channel, in code values."""
    frames = ramps(kind.bits, HEIGHT)
    pattern = folder / f"ramps{kind.bits}.####{kind.suffix}"
    _write(pattern, kind, frames, [None] * len(frames))
    with open_reader(pattern) as reader:
        return error(reader, frames, kind.bits).tolist()


def _stored(path: Path) -> dict[str, np.ndarray]:
    """Samples of a file as they stand in it, (height, width) by channel."""
    hints = oiio.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)  # as they stand there
    file = oiio.ImageInput.open(str(path), hints)
    assert file is not None, oiio.geterror()
    samples = np.asarray(file.read_image("float"))
    names = [*"RGB", *file.spec().channelnames[3:]]
    file.close()
    return {name: samples[..., i] for i, name in enumerate(names)}


def _attribute(path: Path) -> str | None:
    return oiio.ImageBuf(str(path)).spec().get_string_attribute("Artist") or None


def _is_near(before: np.ndarray, after: np.ndarray, kind: Type) -> bool:
    """Whether it is the same, or the next value that samples of whole numbers have."""
    half_a_step = 0.0 if kind.floats else 0.501 / (2**kind.bits - 1)
    return bool((np.abs(before - after) <= half_a_step).all())


def _is_seen(light: np.ndarray) -> np.ndarray:
    """Where models see the light."""
    return (light > 0) & (light < TOP)


def _is_kept(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the light that models do not see is the same."""
    unseen = ~_is_seen(before)
    return bool((before[unseen] == after[unseen]).all())


def _relative(before: np.ndarray, after: np.ndarray) -> float:
    """Greatest error of light that models see, as a share of it."""
    seen = _is_seen(before)
    return float(np.abs(after[seen] / before[seen] - 1).max())
