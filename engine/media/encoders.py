"""Which codec goes into which container, with which pixel format and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError

# A fixed number of threads: the same frames give the same bytes on every machine.
_NUM_THREADS = "4"


@dataclass(frozen=True)
class Encoder:
    """Facts of one video codec.

    `pix_fmts` is (fewest bits it serves, pixel format), best last; `full_chroma` are the formats
    for odd frame sizes, where 4:2:0 has no half sample.
    """

    ffmpeg_name: str
    pix_fmts: tuple[tuple[int, str], ...]
    full_chroma: tuple[tuple[int, str], ...] = ()
    even_only: bool = False
    min_size: int = 1
    crf: int | None = None
    crf_max: int = 0
    lossless: bool = False
    max_fps: int | None = None
    full_range: bool = True
    tag: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


ENCODERS = {
    "h264": Encoder(
        "libx264",
        ((8, "yuv420p"), (10, "yuv420p10le")),
        ((8, "yuv444p"), (10, "yuv444p10le")),
        crf=16,
        crf_max=51,
        # The AVX-512 code of x264's macroblock tree gives other bytes at every run.
        options={"preset": "medium", "x264-params": "mbtree=0"},
    ),
    "hevc": Encoder(
        "libx265",
        ((8, "yuv420p"), (10, "yuv420p10le")),
        ((8, "yuv444p"), (10, "yuv444p10le")),
        min_size=16,
        crf=18,
        crf_max=51,
        tag="hvc1",  # QuickTime plays no other
        options={"preset": "medium", "x265-params": "log-level=none:pools=4:frame-threads=2"},
    ),
    "av1": Encoder(
        "libsvtav1",
        ((8, "yuv420p"), (10, "yuv420p10le")),
        even_only=True,
        min_size=4,
        max_fps=240,
        crf=24,
        crf_max=63,
        options={"preset": "8"},
        environment={"SVT_LOG": "0"},  # the only way to silence its banner
    ),
    "prores": Encoder(
        "prores_ks",
        ((8, "yuv422p10le"),),
        ((8, "yuv444p10le"),),  # FFmpeg damages the last columns of odd widths in 4:2:2
        full_range=False,  # the stream has no flag for it
        options={"vendor": "apl0"},  # the profile follows the format: 422 HQ or 4444
    ),
    "ffv1": Encoder(
        "ffv1",
        ((8, "bgr0"), (10, "gbrp10le"), (12, "gbrp12le"), (14, "gbrp14le"), (16, "gbrp16le")),
        lossless=True,
        min_size=2,
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
    ),
}

# suffix -> (FFmpeg muxer, codecs)
CONTAINERS = {
    ".mp4": ("mp4", ("h264", "hevc", "av1")),
    ".m4v": ("mp4", ("h264", "hevc", "av1")),
    ".mov": ("mov", ("h264", "hevc", "prores")),
    ".mkv": ("matroska", ("h264", "hevc", "av1", "prores", "ffv1")),
    ".webm": ("webm", ("av1",)),
    ".avi": ("avi", ("ffv1",)),
}
# Muxers whose frames have no times of their own.
CONSTANT_RATE = ("avi",)


def muxer_for(path: str, codec: str) -> str:
    """FFmpeg's name of the container; ConfigError if the codec or the pair is not possible."""
    if codec not in ENCODERS:
        raise ConfigError(f"unknown codec {codec!r}; known: {', '.join(ENCODERS)}")
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise ConfigError(
            f"unknown output type {suffix!r} of {path}; known: {', '.join(CONTAINERS)}, "
            "or a folder or %04d.png pattern for pictures"
        )
    muxer, codecs = CONTAINERS[suffix]
    if codec not in codecs:
        places = [s for s, (_, held) in CONTAINERS.items() if codec in held]
        raise ConfigError(
            f"{codec} does not go into {suffix}: {suffix} takes {', '.join(codecs)}, "
            f"{codec} goes into {', '.join(places)}"
        )
    return muxer


def pixel_format(codec: str, width: int, height: int, bit_depth: int) -> str:
    """The format that keeps `bit_depth` best: 4:2:0, or 4:4:4 where an odd size rules that out."""
    encoder = ENCODERS[codec]
    if min(width, height) < encoder.min_size:
        raise ConfigError(
            f"{codec} takes frames from {encoder.min_size}x{encoder.min_size} on, "
            f"not {width}x{height}; h264 takes any size"
        )
    choices = encoder.pix_fmts
    if width % 2 or height % 2:
        if encoder.even_only:
            raise ConfigError(
                f"{codec} needs even frame sizes, not {width}x{height}; "
                "h264, hevc, prores and ffv1 take odd ones"
            )
        choices = encoder.full_chroma or choices
    wide_enough = [name for bits, name in choices if bits >= bit_depth]
    return wide_enough[0] if wide_enough else choices[-1][1]


def encoder_options(codec: str, crf: int | None) -> dict[str, str]:
    """Settings for FFmpeg; ConfigError for a `crf` that the codec does not have."""
    encoder = ENCODERS[codec]
    if crf is not None and encoder.crf is None:
        kind = "lossless" if encoder.lossless else "of fixed quality"
        raise ConfigError(f"{codec} is {kind} and has no crf")
    if crf is not None and not 0 <= crf <= encoder.crf_max:
        raise ConfigError(f"crf {crf} is outside 0..{encoder.crf_max} of {codec}")
    quality = crf if crf is not None else encoder.crf
    options = {"threads": _NUM_THREADS, **encoder.options}
    return options if quality is None else {**options, "crf": str(quality)}
