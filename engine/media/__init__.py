"""Clips in and out: video files and sequences of pictures.

To add a codec or a container, extend the tables of `encoders.py`; for a new kind of source or
target, write a `Reader` or `Writer` (`base.py`) and choose it here by its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from os import PathLike, fspath
from os.path import realpath
from pathlib import Path

from ..errors import ConfigError, InputError
from ..types import HDR, ClipInfo, ColourTags, Numbers, Part
from .base import Reader, Writer
from .carried.cargo import Span
from .decode.reader import VideoReader
from .encode.writer import VideoWriter
from .paths import is_sequence_input, is_sequence_output, list_sequence, output_pattern
from .pictures.reader import ImageReader
from .pictures.writer import ImageWriter

__all__ = ["Reader", "Writer", "open_reader", "open_writer", "probe", "would_replace"]


def probe(
    path: str | PathLike[str], stop: int | None = None, colour_space: str | None = None
) -> ClipInfo:
    """Facts of a clip, from its header and first frame.

    Errors as `open_reader`; a file that is cut short behind frame `stop - 1` is none.
    """
    with open_reader(path, 0, stop, colour_space) as reader:
        return reader.info


def open_reader(
    path: str | PathLike[str],
    start: int = 0,
    stop: int | None = None,
    colour_space: str | None = None,
) -> Reader:
    """Open a clip for reading frames `start .. stop - 1` (0-based, `stop` None = to the end).

    Parameters
    ----------
    path : a video file; or a folder of pictures, a pattern `dir/%04d.png` or `dir/####.png`, or
        one picture.
    colour_space : of pictures, by name; None = integers are display code, and floating point
        (EXR, TIFF) is linear light.

    Returns
    -------
    Reader : a context manager with `info`; iterating it once yields RGB frames (3, H, W),
        float32, gamma-encoded, in [0, 1].  Rotation stored in the file is applied; interlaced
        frames are deinterlaced; linear light is under the curve of `media/pictures/tone.py`.
        `take_note` gives when each is shown.

    Raises
    ------
    InputError : missing, unreadable, damaged, or without pictures; while iterating, also for a
        frame that cannot be decoded, a change of frame size and a range without frames.
    ConfigError : `stop` is not above `start`, or `start` is negative; the colour space is unknown,
        or given for a video.
    """
    path = fspath(path)
    if not path:
        raise InputError("the path of the clip is empty")
    if is_sequence_input(path):
        return ImageReader(path, start, stop, colour_space)
    if colour_space is not None:
        raise ConfigError(f"a colour space is told of pictures alone, and {path} is none")
    return VideoReader(path, start, stop)


def open_writer(
    path: str | PathLike[str],
    *,
    width: int,
    height: int,
    fps: Fraction,
    colour: ColourTags,
    codec: str = "h264",
    crf: int | None = None,
    bit_depth: int = 8,
    chroma: str | None = None,
    time_base: Fraction | None = None,
    hdr: HDR | None = None,
    colour_space: str | None = None,
    pixel_aspect: Fraction | None = None,
    carry_from: str | PathLike[str] | None = None,
    carry_range: Span | None = None,
    first_number: int = 0,
    last_number: int | None = None,
    overwrite: bool = False,
    replaced: Sequence[Numbers] = (),
    workspace: str | PathLike[str] | None = None,
    finished: Sequence[Part] = (),
) -> Writer:
    """Open a clip for writing; it appears under its name when `with` ends without an error.

    Parameters
    ----------
    path : a video file; or, for pictures, a pattern `dir/%04d.exr`, `dir/####.exr` (.png, .tif,
        .exr, .dpx, .jpg), or a folder (existing, with a trailing slash, or any name without a
        suffix) that gets `000000.png` and so on, of the type of the pictures that `carry_from` is.
    colour : matrix and range of the YUV samples that are written, and tags; usually the source's.
    codec : h264, hevc, vp9, av1, prores (422 HQ), prores4444 or ffv1 (lossless, RGB by itself).
    crf : quality of h264, hevc, vp9, av1; None = a visually lossless default.
    bit_depth : of the source; above 8 the 10-bit format of the codec (ffv1: up to 16).  Pictures:
        PNG and TIFF 8 or 16, DPX 10, 12 or 16, EXR half or, for 32, float.
    chroma : "420", "422" or "444": sampling of the colours of a YUV video; None = the codec's own.
    time_base : frames have the times of their notes, in this unit; None = a constant rate.
    hdr : metadata that is stored with a video, where codec and container have a place for it.
    colour_space : name of the space that pictures are written in; None = that of the pictures
        that they were made of, else display code, and for EXR linear light.
    pixel_aspect : width of a pixel over its height, stored with a video; None = square.
    carry_from : clip whose audio, subtitles, chapters and tags are copied, those of `carry_range`
        (start, stop) seconds on its video's timeline.  What the container cannot hold is dropped
        with a warning.
    first_number, last_number : numbers of the first and the last picture, None = unknown; what
        stands between them is in the way unless `overwrite` is on.  Pictures made of pictures keep
        their numbers.
    replaced : numbers of pictures that are replaced though `overwrite` is off.
    workspace : folder on the target's disk for parts that survive the process; None = a hidden one
        that goes when the writer ends.
    finished : parts in it that an earlier process has ended.

    Returns
    -------
    Writer : a context manager with `write(frame)`, frames RGB (3, height, width) in [0, 1].

    Raises
    ------
    InputError : the target exists and `overwrite` is off, or cannot be written.
    ConfigError : unknown codec, suffix or colour space, a pair or a frame size that cannot be,
        `crf` out of range.
    """
    path = fspath(path)
    if not path:
        raise InputError("the path to write to is empty")
    if is_sequence_output(path):
        return ImageWriter(
            path,
            width=width,
            height=height,
            colour=colour,
            bit_depth=bit_depth,
            first_number=first_number,
            last_number=last_number,
            overwrite=overwrite,
            replaced=replaced,
            colour_space=colour_space,
            source=None if carry_from is None else fspath(carry_from),
            finished=finished,
        )
    if colour_space is not None:
        raise ConfigError(f"a colour space is written with pictures alone, and {path} is none")
    return VideoWriter(
        path,
        width=width,
        height=height,
        fps=fps,
        colour=colour,
        codec=codec,
        crf=crf,
        bit_depth=bit_depth,
        chroma=chroma,
        hdr=hdr,
        pixel_aspect=pixel_aspect or Fraction(1),
        time_base=time_base,
        carry_from=_carried(carry_from),
        carry_range=carry_range,
        overwrite=overwrite,
        workspace=None if workspace is None else Path(workspace),
        finished=finished,
    )


def would_replace(target: str | PathLike[str], source: str | PathLike[str]) -> bool:
    """Whether writing `target` would replace a file that `source` is read from."""
    target, source = fspath(target), fspath(source)
    if realpath(target) == realpath(source):
        return True
    if not (is_sequence_input(source) and is_sequence_output(target)):
        return False
    pattern = output_pattern(target, source)
    return any(realpath(pattern.file(n)) == realpath(file) for n, file in list_sequence(source))


def _carried(path: str | PathLike[str] | None) -> str | None:
    """Pictures have neither audio nor chapters."""
    return None if path is None or is_sequence_input(fspath(path)) else fspath(path)
