"""Time codes against numbers of SMPTE 12M."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dtg_restore.engine.media.carried.timecode import later

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("timecode", "num_frames", "rate", "expected"),
    [
        ("01:00:00:00", 8, Fraction(24), "01:00:00:08"),
        ("00:59:59:23", 1, Fraction(24000, 1001), "01:00:00:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:00;00", 1800, NTSC, "00:01:00;02"),
        ("00:00:00;00", 107892, NTSC, "01:00:00;00"),  # an hour, to 3.6 ms
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("noon", 1, Fraction(24), None),
    ],
)
def test_later(timecode: str, num_frames: int, rate: Fraction, expected: str | None) -> None:
    assert later(timecode, num_frames, rate) == expected


def test_drop_frame_numbers_are_those_that_exist() -> None:
    """Of an hour's 108000 numbers 108 are left out; the last one is followed by the next hour's."""
    numbers = [
        f"00:{minute:02}:{second:02};{frame:02}"
        for minute in range(60)
        for second in range(60)
        for frame in range(30)
        if second or frame > 1 or minute % 10 == 0
    ]
    counted = [later("00:00:00;00", number, NTSC) for number in range(107892)]
    assert counted == numbers
