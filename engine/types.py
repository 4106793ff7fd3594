"""Value objects that travel between the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

# Of the first and the last picture of a sequence, both included; None = to the end.
Numbers = tuple[int, int | None]


@dataclass(frozen=True)
class ColourTags:
    """How RGB and the stored samples relate.

    `matrix` is "bt601", "bt709" or "bt2020"; `primaries` and `transfer` are the code points of
    ITU-T H.273 (2 = unspecified).
    """

    matrix: str = "bt709"
    full_range: bool = False
    primaries: int = 2
    transfer: int = 2


@dataclass(frozen=True)
class HDR:
    """Static metadata of an HDR clip (SMPTE ST 2086 and CTA-861.3); None where it has none.

    Parameters
    ----------
    primaries : x and y of red, green, blue and white of the display it was graded on, CIE 1931.
    luminance : least and greatest of that display, cd/m^2.
    light_level : MaxCLL and MaxFALL, cd/m^2.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    light_level: tuple[int, int] | None = None


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before its frames are decoded.

    `num_frames` is counted in the container's index or its packets, or None; it is trusted for
    nothing but an estimate, since damaged ones give no frame.  `readable` is the number of frames
    before the place where a file was cut short, None where it is whole.  `time_base` is the unit
    of the time stamps of a clip whose frame rate varies, None where it is constant.  `chroma` is
    "420", "422" or "444" (also of RGB and grey).
    `colour_space` is the name of the samples' space where it is not the video's own: the reader
    has converted from it.
    """

    path: str
    width: int
    height: int
    fps: Fraction
    num_frames: int | None
    bit_depth: int = 8
    colour: ColourTags = ColourTags()
    has_audio: bool = False
    kind: str = "video"  # or "images"
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel over its height
    readable: int | None = None
    time_base: Fraction | None = None
    chroma: str = "420"
    hdr: HDR | None = None
    colour_space: str | None = None


@dataclass(frozen=True)
class FrameNote:
    """What a frame has beside its colours: it goes from the reader to the writer, past the models.

    Parameters
    ----------
    number : of the frame on the clip's own numbering; of a picture that in its file name.
    time, duration : seconds since the clip's first frame; None for pictures.
    channels : planes (H, W) by name, such as "A" and "Z": float32, float16 where the file holds
        that.
    linear : the frame is linear light under the curve of `media/pictures/tone.py`.
    beyond : the samples (3, H, W) of the frame, without the curve, where some of them lie outside
        of the models' range; else None.
    metadata : of a picture, see `media/pictures/reader.py`.
    """

    number: int
    time: Fraction | None = None
    duration: Fraction | None = None
    channels: Mapping[str, Tensor] = field(default_factory=dict)
    linear: bool = False
    beyond: Tensor | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Frames `start .. stop - 1` that a writer has finished: they survive the process.

    Frames are counted from the first one written.  `files` are (name, bytes) in the writer's
    workspace, or for pictures in their own folder.
    """

    start: int
    stop: int
    files: tuple[tuple[str, int], ...]

    def damaged(self, folder: Path) -> Path | None:
        """The first of the files in `folder` that is missing or has another size."""
        return next((folder / n for n, size in self.files if _size(folder / n) != size), None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


@dataclass(frozen=True)
class Chunk:
    """Frames `start .. stop - 1` of the clip, refined together; `index` counts from its shot.

    The grid of chunks is absolute on the clip's timeline, and begins anew at every shot.
    """

    index: int
    start: int
    stop: int


class Tile(NamedTuple):
    """A window of the frame, in pixels."""

    y: int
    x: int
    height: int
    width: int


class StepInfo(NamedTuple):
    """What one evaluation of the guided velocity did; handed to `on_step`."""

    step: int
    num_steps: int
    t: float
    tau: float
    alpha: float
    num_branches: int


class Progress(NamedTuple):
    """How far a run is.

    Parameters
    ----------
    stage, done, total : "shots", with the frames in which cuts were looked for; "refine", with the
        sampler steps of the current chunk; or "restore", with the frames that have left the last
        stage (total None = the clip does not tell).
    frames, num_frames : the same for frames, whatever the stage.
    fraction : share of the whole run that is done, by floating-point operations; or None.
    """

    stage: str
    done: int
    total: int | None
    frames: int = 0
    num_frames: int | None = None
    fraction: float | None = None
