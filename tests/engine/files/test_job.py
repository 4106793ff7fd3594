"""Which part of a clip's sound goes with which of its frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch

from dtg_restore.engine.files.job import Job
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.types import ColourTags, FrameNote

TICK = Fraction(1, 1000)


def test_range_of_a_varying_rate_is_that_of_its_frames(tmp_path: Path) -> None:
    """A pause of a second behind frame 1: frame 2 is not shown at 2 / rate."""
    source = tmp_path / "a.mkv"
    ends = (0, 40, 1040, 1080, 1120)
    with open_writer(
        source, width=32, height=32, fps=Fraction(25), colour=ColourTags(), time_base=TICK
    ) as writer:
        for i in range(4):
            note = FrameNote(i, ends[i] * TICK, (ends[i + 1] - ends[i]) * TICK)
            writer.write(torch.full((3, 32, 32), 0.5), note)
    job = Job(str(source), str(tmp_path / "b.mkv"), 2, 3)
    info = job.check()
    assert info.time_base is not None
    writer = job.open_writer(info, 1, left=[])
    writer.abort()
    assert writer._cargo.seconds == (Fraction(1040, 1000), Fraction(1080, 1000))
