"""SMPTE 12M time codes HH:MM:SS:FF; `;` before the frames counts drop-frame."""

from __future__ import annotations

import re
from fractions import Fraction

TIMECODE = "timecode"  # FFmpeg's name of the tag
_FORM = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d+)")


def later(timecode: str, num_frames: int, rate: Fraction) -> str | None:
    """The time code `num_frames` after `timecode`; None where it is none.

    Drop-frame leaves out the first 2 numbers (at 60/s: 4) of every minute but each tenth, so that
    30000/1001 frames a second keep up with the clock.
    """
    match = _FORM.fullmatch(timecode)
    per_second = round(rate)
    if match is None or per_second < 1:
        return None
    hours, minutes, seconds, frames = (int(match[i]) for i in (1, 2, 3, 5))
    dropped = round(per_second / 15) if match[4] in ";." else 0
    minute = 60 * hours + minutes
    count = (60 * minute + seconds) * per_second + frames - dropped * (minute - minute // 10)
    return _written(count + num_frames, per_second, dropped, match[4])


def _written(count: int, per_second: int, dropped: int, mark: str) -> str:
    ten_minutes = 600 * per_second - 9 * dropped
    count %= 144 * ten_minutes  # a day
    tens, rest = divmod(count, ten_minutes)
    # The first minute of ten is whole.
    minute = max(0, (rest - dropped) // (60 * per_second - dropped)) if dropped else 0
    number = count + dropped * (9 * tens + minute)
    seconds, frames = divmod(number, per_second)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{frames:02}"
