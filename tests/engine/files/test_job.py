"""What is right with the files of a run, and what goes with which of its frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import InputError
from dtg_restore.engine.files import journal
from dtg_restore.engine.files.job import Job, check_files
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.media.atomic import AtomicFile
from dtg_restore.engine.media.encode.writer import VideoWriter
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


@pytest.mark.parametrize("target", ["o.mkv", "out"])
def test_a_check_that_was_killed_leaves_nothing_for_long(
    pictures: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    source = pictures(torch.rand(3, 3, 12, 20))
    job = Job(str(source), str(tmp_path / "made" / target))
    (tmp_path / "made").mkdir()
    config = RestoreConfig(backbone="none", sr="mini-x2")
    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "abort", killed)
        patch.setattr(VideoWriter, "_tidy", killed)
        patch.setattr(journal, "_clear", killed)
        with pytest.raises(Killed):
            check_files(job, config)
    assert [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    check_files(job, config)
    assert [path for path in (tmp_path / "made").rglob("*") if path.is_file()] == []


def test_a_device_is_not_replaced(pictures: Callable[..., Path], tmp_path: Path) -> None:
    source = pictures(torch.rand(3, 3, 12, 20))
    os.mkfifo(tmp_path / "o.mkv")
    with pytest.raises(InputError, match="is a device or the like"):
        Job(str(source), str(tmp_path / "o.mkv"), overwrite=True).check()
    with pytest.raises(InputError, match="is a device or the like"):
        AtomicFile("/dev/full", overwrite=True)


def test_what_is_hidden_in_the_way_is_named(pictures: Callable[..., Path], tmp_path: Path) -> None:
    job = Job(str(pictures(torch.rand(3, 3, 12, 20))), str(tmp_path / "o.mkv"))
    job.state.touch()
    with pytest.raises(InputError, match=r"o\.mkv: .*\.o\.mkv\.resume: File exists"):
        check_files(job, RestoreConfig(backbone="none", sr="mini-x2"))


def test_a_file_that_cannot_be_removed_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    file = AtomicFile(tmp_path / "a.txt", overwrite=False)
    monkeypatch.setattr(Path, "unlink", refuse)
    file.abort()
