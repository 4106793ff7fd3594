"""Writes and reads back every codec in every container, and what goes along, for docs/MEDIA.md.

    python -m dtg_restore.bench.media --json bench/results/media.json

Frames are ramps of red, green, blue and grey.  Three errors are kept apart, each the greatest of
six codings (BT.601, 709, 2020; limited and full range): of the conversion to samples and back,
without a codec; of the codec, in samples, at the best quality that it has; and of the whole.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch

from ..engine.media import open_reader, open_writer, probe
from ..engine.media.encode.encoders import CONTAINERS, ENCODERS, pixel_format
from ..engine.media.planes import bit_depth, frame_to_rgb, rgb_to_frame
from ..engine.types import HDR, ColourTags, FrameNote
from .media_pictures import pictures
from .media_streams import carried
from .provenance import provenance
from .ramps import CHANNELS, WIDTH, error, ramps

HEIGHT = 32
# The outermost samples of halved colour have no neighbour to be interpolated from.
MARGIN = 4
RATE = Fraction(24000, 1001)
TICK = Fraction(1, 90000)
# As a phone has them: 30 frames/s that drift, and a pause.
VARYING, LAST_DURATION = (0, 3003, 6010, 9021, 27000, 30003), 4000
# primaries, transfer: BT.601 of 525 and of 625 lines, BT.709, sRGB, PQ, HLG
CODINGS = (
    ColourTags("bt601", False, 6, 6),
    ColourTags("bt601", True, 5, 6),
    ColourTags("bt709", False, 1, 1),
    ColourTags("bt709", True, 1, 13),
    ColourTags("bt2020", False, 9, 16),
    ColourTags("bt2020", True, 9, 18),
)
# BT.2020 within P3, 0.005 to 1000 cd/m^2; in the steps of SMPTE ST 2086.
DISPLAY = HDR(
    primaries=tuple(
        (Fraction(x, 50000), Fraction(y, 50000))
        for x, y in ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450))
    ),
    luminance=(Fraction(1, 200), Fraction(1000)),
    light_level=(1000, 400),
)
# AV1 counts coordinates and luminances in powers of two.
STEP = 1e-4


class Format(NamedTuple):
    """`bits` are those of the source, and of the samples that are written."""

    codec: str
    suffix: str
    bits: int

    @property
    def pix_fmt(self) -> str:
        return pixel_format(self.codec, WIDTH, HEIGHT, self.bits, None)

    @property
    def is_yuv(self) -> bool:
        return self.pix_fmt.startswith("yuv")


def formats() -> list[Format]:
    """Every codec in every container, at each of its depths."""
    return [
        Format(codec, suffix, bits)
        for suffix, (_, codecs) in CONTAINERS.items()
        if suffix != ".m4v"  # .mp4 by another name
        for codec in codecs
        for bits in (8, 10, 12, 14, 16)
        if _depth(Format(codec, suffix, bits).pix_fmt) == bits
    ]


def measure(form: Format, folder: Path) -> dict[str, Any]:
    """What came back of one format, as plain data."""
    frames = ramps(form.bits, HEIGHT)
    conversion, whole = torch.zeros(3), torch.zeros(3)
    codec, lost = 0.0, set()
    for coding in CODINGS:
        path = folder / f"{coding.matrix}{coding.full_range:d}{form.suffix}"
        write(path, form, frames, coding)
        info = probe(path)
        lost |= _lost(coding, info.colour, form.is_yuv)
        stored = [rgb_to_frame(frame, form.pix_fmt, info.colour) for frame in frames]
        conversion = conversion.maximum(error(map(frame_to_rgb, stored), frames, form.bits, MARGIN))
        with open_reader(path) as reader:
            whole = whole.maximum(error(reader, frames, form.bits, MARGIN))
        codec = max(codec, sample_error(path, stored))
    return {
        **form._asdict(),
        "pix_fmt": form.pix_fmt,
        "bits_read": info.bit_depth,
        "tags_lost": sorted(lost),
        "rate_kept": info.fps == RATE and info.time_base is None,
        "varying_error_ms": varying_times(form, folder),
        "hdr": keeps_hdr(form, folder),
        "conversion": dict(zip(CHANNELS, conversion.tolist(), strict=True)),
        "codec_error": codec,
        "whole": dict(zip(CHANNELS, whole.tolist(), strict=True)),
    }


def write(
    path: Path,
    form: Format,
    frames: Sequence[torch.Tensor],
    coding: ColourTags,
    notes: Sequence[FrameNote | None] = (),
    **settings: Any,
) -> None:
    """At the best quality that the codec has."""
    notes = notes or [None] * len(frames)
    with open_writer(
        path,
        width=WIDTH,
        height=HEIGHT,
        fps=RATE,
        colour=coding,
        codec=form.codec,
        crf=None if ENCODERS[form.codec].crf is None else 0,
        bit_depth=form.bits,
        **settings,
    ) as writer:
        for frame, note in zip(frames, notes, strict=True):
            writer.write(frame, note)


def sample_error(path: Path, stored: Sequence[av.VideoFrame]) -> float:
    """Greatest difference between the samples given to the encoder and those of the decoder."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    # FFmpeg decodes ProRes 4444 to 12 bits.
    scale = 2.0 ** (bit_depth(stored[0].format) - bit_depth(decoded[0].format))
    return max(
        float(np.abs(_samples(frame) * scale - _samples(right)).max())
        for frame, right in zip(decoded, stored, strict=True)
    )


def varying_times(form: Format, folder: Path) -> float | None:
    """Greatest error of a frame's time or duration; None where the file has a constant rate."""
    ends = (*VARYING, VARYING[-1] + LAST_DURATION)
    spans = [
        (begin * TICK, (end - begin) * TICK) for begin, end in zip(ends, ends[1:], strict=False)
    ]
    notes = [FrameNote(i, time, duration) for i, (time, duration) in enumerate(spans)]
    path = folder / f"varying{form.suffix}"
    frames = [ramps(form.bits, HEIGHT)[0]] * len(spans)
    write(path, form, frames, CODINGS[2], notes, time_base=TICK)
    with open_reader(path) as reader:
        if reader.info.time_base is None:
            return None
        back = [reader.take_note(i) for i, _ in enumerate(reader)]
    missing = Fraction(0)
    differences = [
        max(abs((note.time or missing) - time), abs((note.duration or missing) - duration))
        for note, (time, duration) in zip(back, spans, strict=True)
    ]
    return round(float(max(differences)) * 1000, 3)


def keeps_hdr(form: Format, folder: Path) -> bool:
    path = folder / f"hdr{form.suffix}"
    write(path, form, ramps(form.bits, HEIGHT)[:1], CODINGS[4], hdr=DISPLAY)
    found = probe(path).hdr
    return found is not None and all(
        abs(value - right) <= STEP
        for value, right in zip(_numbers(found), _numbers(DISPLAY), strict=True)
    )


def _numbers(hdr: HDR) -> list[float]:
    """In the order of the fields, nan for what is missing."""
    points = hdr.primaries or ((math.nan, math.nan),) * 4
    values = [value for point in points for value in point]
    values += hdr.luminance or (math.nan, math.nan)
    values += hdr.light_level or (math.nan, math.nan)
    return [float(value) for value in values]


def _lost(wanted: ColourTags, found: ColourTags, is_yuv: bool) -> set[str]:
    """Names of the tags that differ; RGB samples have neither matrix nor range."""
    if not is_yuv:
        wanted = replace(wanted, matrix=found.matrix, full_range=found.full_range)
    names = ("matrix", "full_range", "primaries", "transfer")
    return {name for name in names if getattr(wanted, name) != getattr(found, name)}


def _depth(pix_fmt: str) -> int:
    return bit_depth(av.VideoFormat(pix_fmt, 16, 16))


def _samples(frame: av.VideoFrame) -> np.ndarray:
    """Every sample of a frame, in one row; what fills up a packed pixel is not looked at."""
    if frame.format.name == "bgr0":
        return frame.to_ndarray(format="rgb24").reshape(-1).astype(np.int32)
    dtype = np.dtype("<u2" if bit_depth(frame.format) > 8 else "u1")
    planes = [
        np.frombuffer(memoryview(p), dtype)
        .reshape(p.height, -1)[:, : p.width]
        .reshape(-1)
        .astype(np.int32)
        for p in frame.planes
    ]
    return np.concatenate(planes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for form in formats():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(form, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        held, still = carried(Path(folder)), pictures(Path(folder))
    result = {"rows": rows, "carried": held, "pictures": still, "provenance": provenance()}
    options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
