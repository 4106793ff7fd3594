"""What a picture file says beside its samples: which channels, where, and what is carried over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import OpenImageIO as oiio

from ...errors import InputError
from .files import FLOATS, bits_of

# Attributes that describe how the source's samples were stored, not the picture.
_STORAGE = (
    *(
        "oiio:",
        "tiff:",
        "png:",
        "jpeg:",
        "bmp:",
        "webp:",
        "ICCProfile:",
        "thumbnail",
        "planarconfig",
    ),
    *("openexr:chunkCount", "dpx:ImageDescriptor", "dpx:Packing", "dpx:EndOf", "dpx:DittoKey"),
)
_NO_COLOURS = ("A", "Z", "ZBack", "depth", "id")  # of a picture with one channel
_LOSSLESS_EXR = ("none", "rle", "zip", "zips", "piz")
# What the numbers of the colours mean: true of the copy where they mean the same.
_COLOUR = (
    *("oiio:ColorSpace", "oiio:Gamma", "ICCProfile", "CICP", "chromaticities", "adoptedNeutral"),
    *("colorInteropID", "whiteLuminance", "dpx:Transfer", "dpx:Colorimetric"),
)


class Window(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        place = f" at {self.x}, {self.y}" if (self.x, self.y) != (0, 0) else ""
        return f"{self.width}x{self.height}{place}"

    def holds(self, other: Window) -> bool:
        return self.union(other) == self

    def union(self, other: Window) -> Window:
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Window(x, y, right - x, bottom - y)


@dataclass(frozen=True)
class Target:
    """How a picture is stored.

    `kind` is OpenImageIO's name of the samples' type, `bits` how many of them count; `channels`
    says which are held beside the colours: "all", "alpha" or "none".
    """

    suffix: str
    kind: str
    bits: int
    channels: str

    @property
    def floats(self) -> bool:
        return self.kind in ("half", "float")


def target_for(suffix: str, bit_depth: int, floats: bool) -> Target:
    """The type of samples that keeps `bit_depth`; TIFF holds floats where they are asked for."""
    suffix = suffix.lower()
    wide = bit_depth > 8
    if suffix == ".exr":
        return Target(suffix, "float" if bit_depth > 16 else "half", min(bit_depth, 32), "all")
    if suffix in (".tif", ".tiff") and floats:
        return Target(suffix, "float", 32, "alpha")
    if suffix in (".jpg", ".jpeg"):
        return Target(suffix, "uint8", 8, "none")
    if suffix == ".dpx":
        bits = next((b for b in (10, 12) if bit_depth <= b), 16)
        # OpenImageIO mixes up four channels of 10 bits.
        return Target(suffix, "uint16", bits, "none" if bits == 10 else "alpha")
    return Target(suffix, "uint16" if wide else "uint8", 16 if wide else 8, "alpha")


def windows(spec: oiio.ImageSpec) -> tuple[Window, Window]:
    """The data and the display window."""
    return (
        Window(spec.x, spec.y, spec.width, spec.height),
        Window(spec.full_x, spec.full_y, spec.full_width, spec.full_height),
    )


def colour_names(spec: oiio.ImageSpec, path: str) -> tuple[str, ...]:
    """Names of the channels with the colours: three, or one that is grey.

    InputError where there are none, or such as cannot be read.
    """
    names = spec.channelnames
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in names):
        prefix = f"{layer}." if layer else ""
        rgb = tuple(prefix + channel for channel in "RGB")
        if set(rgb) <= set(names):
            break
    else:
        if "RY" in names or "BY" in names:
            raise InputError(f"{path} holds luminance and chroma: save it as RGB")
        if "Y" not in names and (len(names) > 1 or names[0] in _NO_COLOURS):
            raise InputError(f"{path} holds no colours: its channels are {', '.join(names)}")
        rgb = ("Y",) if "Y" in names else (names[0],)
    if any(_format(spec, name).basetype == oiio.UINT32 for name in rgb):
        raise InputError(f"{path} holds colours of 32-bit integers: save them as half or float")
    return rgb


def bit_depth(spec: oiio.ImageSpec, colours: Sequence[str]) -> int:
    """Bits of a sample of the colours: 8 to 16 for integers, 16 for half and 32 for float."""
    kind = max(_format(spec, name).size() for name in colours) * 8
    return kind if spec.format.basetype in FLOATS else min(kind, max(8, bits_of(spec)))


def alpha_name(colours: Sequence[str]) -> str:
    """Name of the channel that would be the alpha of these colours."""
    prefix, dot, _ = colours[0].rpartition(".")
    return prefix + dot + "A"


def is_number(spec: oiio.ImageSpec, name: str) -> bool:
    """Whether a channel's samples are whole numbers, such as identifiers."""
    return bool(_format(spec, name).basetype == oiio.UINT32)


def is_straight(spec: oiio.ImageSpec | None) -> bool:
    """Whether colours were not multiplied by their alpha."""
    return spec is not None and bool(spec.get_int_attribute("oiio:UnassociatedAlpha"))


def _format(spec: oiio.ImageSpec, name: str) -> oiio.TypeDesc:
    index = spec.channelnames.index(name)
    return spec.channelformats[index] if spec.channelformats else spec.format


def layout(source: oiio.ImageSpec | None, target: Target, colours: Sequence[str]) -> list[str]:
    """Channels of the file that is written, in order; the colours are always three.

    `colours` are those of the source, one where it was grey.
    """
    if source is None:
        return list("RGB")
    rgb = list(colours) if len(colours) == 3 else list("RGB")
    held: list[str] = []
    for name in source.channelnames:
        if name in colours:
            held += rgb if name == colours[0] else []
        elif target.channels == "all" or (
            target.channels == "alpha" and name == alpha_name(colours)
        ):
            held.append(name)
    # Only EXR has names; in the others the first channels are the colours.
    return held if target.channels == "all" else rgb + [n for n in held if n not in rgb]


def new_spec(
    source: oiio.ImageSpec | None,
    target: Target,
    names: Sequence[str],
    colours: Sequence[str],
    *,
    data: Window,
    display: Window,
    same_colours: bool,
    straight: bool,
) -> oiio.ImageSpec:
    """The header that is written.

    Parameters
    ----------
    source : of the picture it was made of; None for a frame of a video.
    names : channels of the file; `colours` are the three that hold colours.
    data, display : windows of the file; both start at 0 where the format has none.
    same_colours : numbers mean the same colours as in the source.
    straight : colours are not multiplied by alpha.
    """
    spec = oiio.ImageSpec(source) if source else oiio.ImageSpec()
    for name in [a.name for a in spec.extra_attribs]:
        kept = same_colours if name.startswith(_COLOUR) else not name.startswith(_STORAGE)
        if not kept:
            spec.erase_attribute(name)
    spec.tile_width = spec.tile_height = spec.tile_depth = 0
    spec.x, spec.y, spec.width, spec.height = data
    spec.full_x, spec.full_y, spec.full_width, spec.full_height = display
    spec.nchannels, spec.channelnames = len(names), tuple(names)
    spec.alpha_channel = names.index(alpha_name(colours)) if alpha_name(colours) in names else -1
    _set_types(spec, source, target, names, colours)
    spec.attribute("oiio:UnassociatedAlpha", int(straight))
    spec.attribute("oiio:BitsPerSample", target.bits)
    for name, value in _compression(spec, target).items():
        spec.attribute(name, value)
    if spec.getattribute("DateTime") is None:
        spec.attribute("DateTime", "")  # else it would be now, and other bytes at every run
    return spec


def _set_types(
    spec: oiio.ImageSpec,
    source: oiio.ImageSpec | None,
    target: Target,
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Colours as the target has them; other channels of an EXR as they were."""
    form = oiio.TypeDesc(target.kind)
    spec.set_format(form)
    if source is None or target.channels != "all" or source.format.basetype not in FLOATS:
        return
    formats = [form if name in colours else _format(source, name) for name in names]
    if any(f != form for f in formats):
        spec.channelformats = tuple(formats)


def _compression(spec: oiio.ImageSpec, target: Target) -> dict[str, str | int]:
    """Of a few settings, each the fastest within a tenth of the smallest file, or nearly so."""
    if target.suffix == ".exr":  # as the source was, unless that would lose something
        was = str(spec.getattribute("compression"))
        return {"compression": was if was in _LOSSLESS_EXR else "zip"}
    if target.suffix == ".png":
        return {"png:compressionLevel": 3}
    if target.suffix in (".tif", ".tiff"):
        return {"compression": "zip" if target.floats else "lzw"}
    if target.suffix in (".jpg", ".jpeg"):
        return {"compression": "jpeg:95", "jpeg:subsampling": "4:4:4"}
    return {}
