"""Value objects that travel between the stages."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple


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
class ClipInfo:
    """What is known of a clip before its frames are decoded.

    `num_frames` is what the container claims, or None; it is never trusted for anything but
    an estimate.  `readable` is the number of frames before the place where a file was cut short,
    None where it is whole.
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


@dataclass(frozen=True)
class Chunk:
    """Frames `start .. stop - 1` of the clip, refined together.

    The grid of chunks is absolute on the clip's timeline.
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
    stage, done, total : "refine", with the sampler steps of the current chunk; or "restore", with
        the frames that have left the last stage (total None = the clip does not tell).
    frames, num_frames : the same for frames, whatever the stage.
    fraction : share of the whole run that is done, by floating-point operations; or None.
    """

    stage: str
    done: int
    total: int | None
    frames: int = 0
    num_frames: int | None = None
    fraction: float | None = None
