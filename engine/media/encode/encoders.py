"""Which codec goes into which container, with which pixel format and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av

from ...errors import ConfigError
from ...types import HDR
from .hdr_settings import hdr_settings

# A fixed number of threads: the same frames give the same bytes on every machine.
_NUM_THREADS = "4"


# (fewest bits that it serves, pixel format), best last
_Formats = tuple[tuple[int, str], ...]


def _yuv(sampling: str, *depths: int) -> _Formats:
    return tuple((n, f"yuv{sampling}p" + (f"{n}le" if n > 8 else "")) for n in depths)


def _planar(
    *depths: int, samplings: tuple[str, ...] = ("420", "422", "444")
) -> dict[str, _Formats]:
    return {sampling: _yuv(sampling, *depths) for sampling in samplings}


_RGB: _Formats = (
    *((8, "bgr0"), (10, "gbrp10le"), (12, "gbrp12le")),
    *((14, "gbrp14le"), (16, "gbrp16le")),
)


@dataclass(frozen=True)
class Encoder:
    """Facts of one video codec.

    Parameters
    ----------
    formats : pixel formats by sampling of the colours, its own sampling first.
    odd : formats for odd frame sizes, where the others have no half sample; None = it takes none.
    narrow : (width, settings) that frames below that width need.
    crf : its default; None = the codec has none.
    crf_among : the option whose list it stands in, where FFmpeg's own is not heard for 0.
    hdr : name of FFmpeg's option that takes mastering display and light level; None = the stream
        has no place for them.
    environment : variables that are set where they are not.
    """

    ffmpeg_name: str
    formats: dict[str, _Formats]
    odd: _Formats | None = _yuv("444", 8, 10)
    min_size: int = 1
    max_fps: int | None = None
    crf: int | None = None
    crf_max: int = 0
    crf_among: str | None = None
    lossless: bool = False
    full_range: bool = True
    tag: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    narrow: tuple[int, dict[str, str]] = (0, {})
    hdr: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


ENCODERS = {
    "h264": Encoder(
        "libx264",
        _planar(8, 10),
        crf=16,
        crf_max=51,
        # The AVX-512 code of x264's macroblock tree gives other bytes at every run.
        options={"preset": "medium", "x264-params": "mbtree=0"},
        hdr="x264-params",
    ),
    "hevc": Encoder(
        "libx265",
        _planar(8, 10),
        min_size=16,
        crf=18,
        crf_max=51,
        tag="hvc1",  # QuickTime plays no other
        options={"preset": "medium", "x265-params": "log-level=none:pools=4:frame-threads=2"},
        # The AVX code of x265's tree writes behind its buffer where a row has few blocks.
        narrow=(64, {"x265-params": "cutree=0"}),
        hdr="x265-params",
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        _planar(8, 10),
        crf=20,
        crf_max=63,
        options={"deadline": "good", "cpu-used": "3"},
    ),
    "av1": Encoder(
        "libsvtav1",
        _planar(8, 10, samplings=("420",)),
        odd=None,
        min_size=4,
        max_fps=240,
        crf=24,
        crf_max=63,
        crf_among="svtav1-params",
        options={"preset": "8"},
        hdr="svtav1-params",
        environment={"SVT_LOG": "0"},  # the only way to silence its banner
    ),
    "prores": Encoder(
        "prores_ks",
        {"422": ((8, "yuv422p10le"),)},
        odd=((8, "yuv444p10le"),),  # FFmpeg damages the last columns of odd widths in 4:2:2
        full_range=False,  # the stream has no flag for it
        options={"vendor": "apl0"},  # the profile follows the format: 422 HQ or 4444
    ),
    "prores4444": Encoder(
        "prores_ks",
        {"444": ((8, "yuv444p10le"),)},
        odd=((8, "yuv444p10le"),),
        full_range=False,
        options={"vendor": "apl0"},
    ),
    "ffv1": Encoder(
        "ffv1",
        {"rgb": _RGB, **_planar(8, 10, 12, 16)},
        odd=_RGB,
        lossless=True,
        min_size=2,
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
    ),
}

# suffix -> (FFmpeg muxer, codecs)
CONTAINERS = {
    ".mp4": ("mp4", ("h264", "hevc", "vp9", "av1")),
    ".m4v": ("mp4", ("h264", "hevc", "vp9", "av1")),
    ".mov": ("mov", ("h264", "hevc", "prores", "prores4444")),
    ".mkv": ("matroska", tuple(ENCODERS)),
    ".webm": ("webm", ("vp9", "av1")),
    ".avi": ("avi", ("ffv1",)),
}
# Muxers that store neither times of frames nor what their colours mean.
PLAIN = ("avi",)


def muxer_for(path: str, codec: str, chroma: str | None = None) -> str:
    """FFmpeg's name of the container; ConfigError if it cannot hold what is asked for."""
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
    if chroma is not None and muxer in PLAIN:
        raise ConfigError(f"{suffix} does not tell how chroma {chroma} is coded; .mkv does")
    return muxer


def pixel_format(codec: str, width: int, height: int, bit_depth: int, chroma: str | None) -> str:
    """The format that keeps `bit_depth` best, with the codec's own sampling if `chroma` is None.

    ConfigError for a sampling that the codec does not have, or that odd frames rule out.
    """
    encoder = ENCODERS[codec]
    if min(width, height) < encoder.min_size:
        raise ConfigError(
            f"{codec} takes frames from {encoder.min_size}x{encoder.min_size} on, "
            f"not {width}x{height}; h264 takes any size"
        )
    formats = _formats(codec, width, height, chroma)
    # Some builds of FFmpeg's libraries have fewer bits than others.
    built = {form.name for form in av.Codec(encoder.ffmpeg_name, "w").video_formats or ()}
    formats = tuple(entry for entry in formats if entry[1] in built) or formats
    wide_enough = [name for bits, name in formats if bits >= bit_depth]
    return wide_enough[0] if wide_enough else formats[-1][1]


def _formats(codec: str, width: int, height: int, chroma: str | None) -> _Formats:
    encoder = ENCODERS[codec]
    known = [sampling for sampling in encoder.formats if sampling != "rgb"]
    if chroma is not None and chroma not in known:
        raise ConfigError(f"{codec} has no chroma {chroma!r}; it has {', '.join(known)}")
    is_odd = bool(width % 2 or height % 2)
    if is_odd and encoder.odd is None:
        raise ConfigError(
            f"{codec} needs even frame sizes, not {width}x{height}; "
            f"{', '.join(name for name, e in ENCODERS.items() if e.odd)} take odd ones"
        )
    if is_odd and chroma in ("420", "422"):
        raise ConfigError(f"chroma {chroma} needs even frame sizes, not {width}x{height}")
    if is_odd and chroma is None:
        return encoder.odd or ()
    return encoder.formats[chroma or next(iter(encoder.formats))]


def encoder_options(
    codec: str, crf: int | None, width: int, hdr: HDR | None = None
) -> dict[str, str]:
    """Settings for FFmpeg; ConfigError for a `crf` that the codec does not have."""
    encoder = ENCODERS[codec]
    if crf is not None and encoder.crf is None:
        kind = "lossless" if encoder.lossless else "of fixed quality"
        raise ConfigError(f"{codec} is {kind} and has no crf")
    if crf is not None and not 0 <= crf <= encoder.crf_max:
        raise ConfigError(f"crf {crf} is outside 0..{encoder.crf_max} of {codec}")
    quality = crf if crf is not None else encoder.crf
    options = {"threads": _NUM_THREADS, **encoder.options}
    if quality is not None and encoder.crf_among is None:
        options["crf"] = str(quality)
    elif quality is not None and encoder.crf_among is not None:
        options = _joined(options, {encoder.crf_among: f"crf={quality}"})
    narrow_width, narrow = encoder.narrow
    if width < narrow_width:
        options = _joined(options, narrow)
    if hdr is not None and encoder.hdr is not None:
        options = _joined(options, {encoder.hdr: hdr_settings(hdr, codec)})
    return options


def _joined(options: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Options whose values are lists between colons, with longer lists."""
    longer = {
        name: f"{options[name]}:{value}" if name in options else value
        for name, value in more.items()
        if value
    }
    return options | longer
