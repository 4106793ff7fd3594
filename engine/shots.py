"""Where the shots of a clip begin: found in its frames, or read from a list.

A cut is a place where the frame cannot be put together from pieces of the one before.  Frames are
compared as thumbnails of equal mean and contrast, block by block, each block at the place where it
fits best: so neither motion nor exposure looks like a cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from os import PathLike, fspath
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, Interrupted
from .media import open_reader
from .tiling import ChunkGrid
from .types import ClipInfo, Progress

SIZE = (18, 32)  # rows and columns of a thumbnail
BLOCK = (6, 8)
SEARCH = (4, 8)  # rows and columns that a block may have moved, each way
REACH = 4  # frames on either side of a cut that a decision looks at
# In films of real clips a cut exceeds the motion around it by 0.4 and more, and a pan by less than
# 0.36; bench/shots.py measures what comes of it.
LIMIT = 0.37
RETURNED = 0.6  # share of a difference below which a flash is over and the shot goes on
BRIGHTER = 0.04  # of a flash
NOISE = 0.004  # contrast that is no picture
BLACK = 0.005  # contrast of a frame that shows nothing
FADING = 0.4  # share of a step of brightness that the step beside it has in a fade
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Thumbnail:
    """A frame as it is compared: `values` (3, *SIZE) of mean 0 and mean deviation 1."""

    values: Tensor
    light: float
    contrast: float

    @classmethod
    def of(cls, frame: Tensor) -> Thumbnail:
        small = F.adaptive_avg_pool2d(frame.detach().float(), SIZE).cpu()
        light = (small.mean((1, 2)) * torch.tensor(LUMA)).sum().item()
        values = small - small.mean()
        contrast = values.abs().mean().item()
        return cls(values / (contrast + NOISE), light, contrast)


def difference(a: Thumbnail, b: Thumbnail) -> float:
    """0 of equal frames, about 1 of unrelated ones; of blocks of one in the other, the worse."""
    return max(_mismatch(a.values, b.values), _mismatch(b.values, a.values))


def _mismatch(a: Tensor, b: Tensor) -> float:
    """Mean difference of the blocks of `a` from where they fit best in `b`."""
    rows, columns = SEARCH
    padded = F.pad(b[None], (columns, columns, rows, rows), mode="replicate")[0]
    shifted = padded.unfold(1, SIZE[0], 1).unfold(2, SIZE[1], 1)
    apart = (shifted - a[:, None, None]).abs().mean(0).view(-1, 1, *SIZE)
    return F.avg_pool2d(apart, BLOCK).flatten(1).amin(0).mean().item()


def is_cut(before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> bool:
    """Whether a shot begins with `after`, where the difference exceeds `LIMIT`.

    `before` holds the last frames of the shot, `after` the next ones; up to `REACH` of each count.
    """
    around = [difference(side[0], side[1]) for side in (before[-2:], after[:2]) if len(side) == 2]
    motion = min(around, default=0.0)  # what differs as much on both sides moves fast
    found = difference(before[-1], after[0])
    return found - motion > LIMIT and not _fades(before, after) and not _flashes(before, after)


def _may_be_cut(a: Thumbnail, b: Thumbnail) -> bool:
    # A block that stays in its place fits no better than one that may move.
    apart = (a.values - b.values).abs().mean().item()
    return apart > LIMIT and difference(a, b) > LIMIT


def _flashes(before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> bool:
    """Whether frames that are brighter than those around them interrupt one shot."""
    frames, limit = [*before, *after], RETURNED * difference(before[-1], after[0])
    for i in range(len(before)):
        for j in range(max(i + 2, len(before)), len(frames)):
            darkest = min(frame.light for frame in frames[i + 1 : j])
            is_flash = darkest > max(frames[i].light, frames[j].light) + BRIGHTER
            if is_flash and difference(frames[i], frames[j]) < limit:
                return True
    return False


def _fades(before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> bool:
    """Whether a fade ends in black, or begins there: the brightness already moves that way."""
    if min(before[-1].contrast, after[0].contrast) > BLACK:
        return False
    step = after[0].light - before[-1].light
    steps = [side[1].light - side[0].light for side in (before[-2:], after[:2]) if len(side) == 2]
    return any(other / step > FADING for other in steps if step)


def place(frames: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The frames (3, H, W) of a clip, each with the number of its shot's first frame.

    A frame is given on at once, unless a shot may begin with it: then up to `REACH` are looked at.
    What is decided depends on the frames alone that lie between the beginning of the clip and
    `REACH` frames on.
    """
    pairs = ((frame, Thumbnail.of(frame)) for frame in frames)
    before: deque[Thumbnail] = deque(maxlen=REACH)  # of the shot
    after: deque[tuple[Tensor, Thumbnail]] = deque()
    shot = 0
    for number in count():
        after.extend(islice(pairs, 0 if after else 1))
        if not after:
            return
        if before and _may_be_cut(before[-1], after[0][1]):
            after.extend(islice(pairs, REACH - len(after)))
            if is_cut([*before], [thumbnail for _, thumbnail in after]):
                shot = number
                before.clear()
        before.append(after[0][1])
        yield shot, after.popleft()[0]


def find_shots(
    source: str | PathLike[str],
    info: ClipInfo,
    stop: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    color_space: str | None = None,
) -> tuple[int, ...]:
    """The first frames of the shots of a clip that begin before frame `stop` (None = all).

    The clip is read from its beginning, so that ranges of it agree on its shots.

    Raises
    ------
    InputError : it cannot be read.
    Interrupted : `cancel` returned True.
    """
    ends = [end for end in (info.readable, None if stop is None else stop + REACH) if end]
    claimed = [end for end in (*ends, info.num_frames) if end]
    total = min(claimed, default=None)
    shots = [0]
    with open_reader(source, 0, min(ends, default=None), color_space) as reader:
        for number, (shot, _) in enumerate(place(reader)):
            if shot != shots[-1]:
                shots.append(shot)
            reader.take_note(number)
            if cancel is not None and cancel():
                raise Interrupted("cancelled")
            if on_progress is not None:
                on_progress(Progress("shots", number + 1, total))
    return tuple(shot for shot in shots if stop is None or shot < stop)


def shots_of(
    setting: str,
    source: str | PathLike[str],
    info: ClipInfo,
    grid: ChunkGrid,
    stop: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    color_space: str | None = None,
) -> tuple[int, ...]:
    """The first frames of a clip's shots, as `RestoreConfig.shots` is set: at least those that
    frames below `stop` depend on.  Errors as `find_shots` and `read_shots`."""
    given = given_shots(setting)
    if given is not None:
        return given
    if stop is not None:  # the chunk of the last frame may be cut behind it
        stop += grid.length
    return find_shots(source, info, stop, on_progress, cancel, color_space)


def given_shots(setting: str) -> tuple[int, ...] | None:
    """The first frames of shots that `RestoreConfig.shots` gives; None = they are to be found."""
    if setting == "auto":
        return None
    return (0,) if setting == "none" else read_shots(setting)


def read_shots(path: str | PathLike[str]) -> tuple[int, ...]:
    """The first frames of shots from a text file: one number a line, rising, # begins a comment.

    InputError, with the line, where it holds anything else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read the shots in {fspath(path)}: {reason}") from None
    shots = [0]
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        first = int(text) if text.isascii() and text.isdigit() else -1
        if first < shots[-1] or (first == shots[-1] and first > 0):
            raise InputError(
                f"{fspath(path)}, line {number}: {text!r} is no frame behind {shots[-1]}"
            )
        if first > 0:
            shots.append(first)
    return tuple(shots)


def shots_as_text(shots: Iterable[int]) -> str:
    """What `read_shots` reads."""
    return "# first frame of every shot\n" + "".join(f"{shot}\n" for shot in shots)
