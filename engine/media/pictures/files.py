"""One picture file, read and written as planes, through OpenImageIO."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import OpenImageIO as oiio
import torch
from torch import Tensor

from ...errors import InputError
from ..atomic import AtomicFile

FLOATS = (oiio.HALF, oiio.FLOAT, oiio.DOUBLE)
_TYPES = {oiio.UINT8: "uint8", oiio.UINT16: "uint16", oiio.HALF: "half"}
_PNG = b"\x89PNG\r\n\x1a\n"
MAX_NUMBER = 1 << 24  # the greatest integer that float32, and OpenImageIO on its way, holds exactly
_ID_SCALE = float((1 << 32) - 1)  # how OpenImageIO sees integers as fractions
_TOP_LEFT = 1  # the orientation that needs no turning


@dataclass(frozen=True)
class Picture:
    """Planes (H, W) by channel name: float32, or float16 where the file holds that.

    Integer samples are fractions of their peak; those of 32 bits are numbers, as identifiers.
    """

    spec: oiio.ImageSpec
    planes: dict[str, Tensor]


def open_picture(path: Path) -> oiio.ImageInput:
    """A file whose header was read, at the part with its colours; InputError if it is missing or
    no picture."""
    hints = oiio.ImageSpec()
    # Colours as they are stored, whether or not they were multiplied by alpha.
    hints.attribute("oiio:UnassociatedAlpha", 1)
    try:
        with path.open("rb") as stored:
            whole = stored.read(8) != _PNG or _is_whole_png(stored)
        str(path).encode()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeEncodeError:
        raise InputError(f"cannot read {path}: the name is not UTF-8") from None
    file = oiio.ImageInput.open(str(path), hints) if whole else None
    if file is None:
        oiio.geterror()
        raise InputError(f"{path} is not a readable picture")
    _go_to_colours(file)
    if file.spec().deep:
        raise InputError(f"{path} is a deep picture: flatten it first")
    if file.format_name() == "dpx" and _is_garbled(file.spec()):
        raise InputError(
            f"{path} holds samples of 10 bits in rows whose end is read wrong: save it with 16 bits"
        )
    return file


def _go_to_colours(file: oiio.ImageInput) -> None:
    """To the first part with red, green and blue; the first of all where none has."""
    part = 0
    while file.seek_subimage(part, 0):
        if {"R", "G", "B"} <= set(file.spec().channelnames):
            return
        part += 1
    file.geterror()
    file.seek_subimage(0, 0)


def _is_garbled(spec: oiio.ImageSpec) -> bool:
    """Whether OpenImageIO loses the last sample of each row of a DPX of 10 bits, which has three
    samples to a word: one that is alone in the last word, and of grey one of two."""
    filled = spec.get_string_attribute("dpx:Packing") != "Packed"
    left = spec.nchannels * spec.width % 3
    return filled and bits_of(spec) == 10 and (left == 1 or (left == 2 and spec.nchannels == 1))


def read_header(path: Path) -> oiio.ImageSpec:
    """What a file says of itself, the right way up."""
    file = open_picture(path)
    return _upright(file)


def read_picture(path: Path) -> Picture:
    """Decode one picture, the right way up; InputError if it is damaged."""
    file = open_picture(path)
    spec = file.spec()
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    planes = {}
    for begin, end in _runs(formats):
        samples = _read(file, begin, end, formats[begin], bits_of(spec))
        if samples is None:
            raise InputError(f"{path} is not a readable picture")
        for name, plane in zip(spec.channelnames[begin:end], samples, strict=True):
            planes[name] = _turned(plane, spec.get_int_attribute("Orientation", _TOP_LEFT))
    return Picture(_upright(file), planes)


def write_picture(file: AtomicFile, spec: oiio.ImageSpec, planes: list[Tensor]) -> None:
    """Write planes (H, W), as `read_picture` gives them, and give the file its name.

    `spec` says the type of each and how many bits of an integer count (`oiio:BitsPerSample`).
    """
    with file.filled() as path:
        path.write_bytes(_encoded(spec, planes, file.target.name))


def _encoded(spec: oiio.ImageSpec, planes: list[Tensor], name: str) -> bytes:
    """The bytes of a file called `name`.

    In memory first: on a full disk libjpeg would end the process, and libpng say nothing.
    """
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    values = [_to_file(p, f, bits_of(spec)) for p, f in zip(planes, formats, strict=True)]
    with _scratch_file() as (file, path):
        output = oiio.ImageOutput.create(name)
        assert output is not None, name  # paths.py knows what can be written
        done = output.open(path, spec)
        done = done and output.write_image(np.stack(values, -1)) and output.close()
        error = output.geterror()
        if not done:
            raise InputError(f"cannot write {name}: {error.strip()}")
        content = file.read()
    # DPX holds its own name (100 bytes, SMPTE 268M).
    own = name.encode()[:99].ljust(100, b"\0")
    return content[:36] + own + content[136:] if name.lower().endswith(".dpx") else content


@contextmanager
def _scratch_file() -> Iterator[tuple[IO[bytes], str]]:
    """A file and its path; in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("picture"), "rb") as file:
            yield file, f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            yield named.file, named.name


def _is_whole_png(file: IO[bytes]) -> bool:
    """Whether all chunks are there and undamaged: libpng would tell the terminal of others."""
    while len(head := file.read(8)) == 8:
        content = head[4:] + file.read(int.from_bytes(head[:4], "big"))
        if int.from_bytes(file.read(4), "big") != zlib.crc32(content):
            return False
        if head[4:] == b"IEND":
            return True
    return False


def holds_floats(spec: oiio.ImageSpec) -> bool:
    return spec.format.basetype in FLOATS


def bits_of(spec: oiio.ImageSpec) -> int:
    """How many bits of an integer sample count."""
    size = spec.format.basesize() * 8
    return min(spec.get_int_attribute("oiio:BitsPerSample", size), size)


def _runs(formats: tuple[oiio.TypeDesc, ...]) -> list[tuple[int, int]]:
    """Neighbouring channels of one type."""
    starts = [i for i, f in enumerate(formats) if i == 0 or f != formats[i - 1]]
    return list(zip(starts, (*starts[1:], len(formats)), strict=True))


def _read(
    file: oiio.ImageInput, begin: int, end: int, form: oiio.TypeDesc, bits: int
) -> list[Tensor] | None:
    """Channels `begin .. end - 1`; None if the file is damaged."""
    kind = _TYPES.get(form.basetype, "double" if form.basetype == oiio.UINT32 else "float")
    pixels = file.read_image(file.current_subimage(), 0, begin, end, kind)
    if pixels is None or file.has_error:  # JPEG has pixels and an error where it was cut short
        file.geterror()
        return None
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    if kind == "double":
        return list(torch.from_numpy(np.round(planes * _ID_SCALE).astype(np.float32)))
    if kind in ("half", "float"):
        return list(torch.from_numpy(planes))
    # 10 bits in 16: the upper ones, whether those below them repeat them or are 0.
    codes = planes >> (planes.dtype.itemsize * 8 - bits)
    return list(torch.from_numpy(codes.astype(np.float32)) / float(2**bits - 1))


def _to_file(plane: Tensor, form: oiio.TypeDesc, bits: int) -> np.ndarray:
    if form.basetype == oiio.UINT32:
        return plane.double().numpy() / _ID_SCALE
    if form.basetype in FLOATS:
        return plane.float().numpy()
    peak = float(2**bits - 1)
    code = (plane.float().nan_to_num(0).clamp(0, 1) * peak).round()
    stored = float((1 << form.basesize() * 8) - 1)
    kind = np.uint8 if form.basetype == oiio.UINT8 else np.uint16
    return (code if peak == stored else (code * (stored / peak)).round()).numpy().astype(kind)


def _turned(plane: Tensor, orientation: int) -> Tensor:
    """Undo an orientation of TIFF and Exif: 5 to 8 lie on their side."""
    if orientation > 4:
        plane = plane.T
    mirrored = [d for d, those in ((-1, (2, 3, 6, 7)), (-2, (3, 4, 7, 8))) if orientation in those]
    return plane.flip(mirrored).contiguous() if mirrored else plane.contiguous()


def _upright(file: oiio.ImageInput) -> oiio.ImageSpec:
    """The header of the turned picture; windows other than the picture itself for EXR alone."""
    spec = oiio.ImageSpec(file.spec())
    orientation = spec.get_int_attribute("Orientation", _TOP_LEFT)
    if orientation > 4:
        spec.width, spec.height = spec.height, spec.width
        aspect = spec.get_float_attribute("PixelAspectRatio", 1.0)
        spec.attribute("PixelAspectRatio", 1 / aspect if aspect > 0 else 1.0)
    if orientation != _TOP_LEFT:
        spec.attribute("Orientation", _TOP_LEFT)
    if file.format_name() != "openexr":
        spec.x = spec.y = spec.full_x = spec.full_y = 0
        spec.full_width, spec.full_height = spec.width, spec.height
    return spec
