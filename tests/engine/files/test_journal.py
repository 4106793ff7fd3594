"""The state of an unfinished run: what is kept, for whom, and what damage does."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.engine.errors import InputError
from dtg_restore.engine.files.journal import (
    LOCK,
    RECORDS,
    Journal,
    claimed,
    finished_frames,
    numbers_left,
    was_begun,
)
from dtg_restore.engine.types import Part

KEY: dict[str, Any] = {"steps": 4, "tile": (96, 96), "the input": "a" * 64, "prompt": None}
TARGET = "o.mkv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".o.mkv.resume"


@contextmanager
def opened(folder: Path, resume: bool = True, **changed: Any) -> Iterator[Journal]:
    with Journal.open(folder, TARGET, KEY | changed, folder, resume) as journal:
        yield journal


def put(journal: Journal, *stops: int) -> None:
    for stop in stops:
        start = journal.parts[-1].stop if journal.parts else 0
        name = f"{start:09d}.part"
        (journal.folder / name).write_bytes(bytes(stop))
        journal.add(Part(start, stop, ((name, stop),)))


def left_by_a_run(folder: Path, *stops: int, **facts: Any) -> None:
    with opened(folder) as journal:
        journal.begin()
        journal.note(**facts)
        put(journal, *stops)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parts_and_facts_are_found_again(folder: Path) -> None:
    left_by_a_run(folder, 48, 96, shots=[0, 50], tile=(48, 48))
    assert finished_frames(folder) == 96 and was_begun(folder)
    with opened(folder) as journal:
        assert [(part.start, part.stop) for part in journal.parts] == [(0, 48), (48, 96)]
        assert journal.facts == {"shots": [0, 50], "tile": [48, 48]}
        journal.begin()
        put(journal, 100)
    with opened(folder) as journal:
        assert journal.parts[-1] == Part(96, 100, (("000000096.part", 100),))
        assert journal.facts["shots"] == [0, 50]


def test_nothing_is_left_of_a_run_that_is_over(folder: Path) -> None:
    left_by_a_run(folder, 48)
    with opened(folder) as journal:
        journal.begin()
        put(journal, 60)
        journal.finish()
    assert not list(folder.parent.iterdir()) and finished_frames(folder) == 0


@pytest.mark.parametrize("begins", [False, True])
def test_nothing_is_left_where_nothing_was_finished(folder: Path, begins: bool) -> None:
    with pytest.raises(ZeroDivisionError), opened(folder) as journal:
        if begins:
            journal.begin()
        (folder / "000000000.part.part").touch()
        raise ZeroDivisionError
    assert not list(folder.parent.iterdir())


def test_folders_that_were_made_go_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with claimed(tmp_path / "there" / "a" / "b" / ".x", "x"):
        pass
    assert names(tmp_path) == ["there"] and not names(tmp_path / "there")


def test_what_is_no_part_is_removed(folder: Path) -> None:
    left_by_a_run(folder, 48)
    (folder / "000000048.part.part").write_bytes(b"half")
    with opened(folder) as journal:
        journal.begin()
        assert names(folder) == ["000000000.part", RECORDS, LOCK]


# -- another run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"steps": 5}, "steps was 4 and is 5"),
        ({"prompt": "clean"}, 'prompt was null and is "clean"'),
        ({"the input": "b" * 64}, "the input has changed"),
        ({"steps": 5, "tile": None}, "steps was 4 and is 5, tile was [96, 96] and is null"),
        ({"new": 1}, "new was null and is 1"),
    ],
)
def test_a_changed_key_starts_anew(
    folder: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], says: str
) -> None:
    left_by_a_run(folder, 48, tile=(8, 8))
    with opened(folder, **changed) as journal:
        assert journal.parts == [] and journal.facts == {}
        journal.begin()
        assert names(folder) == [RECORDS, LOCK]
    assert [r.getMessage() for r in caplog.records] == [f"o.mkv: {says}, so the run starts anew"]


def test_what_another_run_has_finished_stays_until_this_one_begins(folder: Path) -> None:
    left_by_a_run(folder, 48)
    with pytest.raises(ZeroDivisionError), opened(folder, steps=5):
        raise ZeroDivisionError  # as where the output may not be written
    with opened(folder) as journal:
        assert [part.stop for part in journal.parts] == [48]


def test_numbers_of_pictures_outlast_changed_keys(folder: Path) -> None:
    for steps, numbers in ((4, (1, 9)), (5, (1, None)), (6, (1, 9))):
        with opened(folder, steps=steps) as journal:
            journal.begin(numbers)
            put(journal, 48)
    assert numbers_left(folder) == [(1, 9), (1, None)]


def test_no_resume_starts_anew_without_a_word(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_by_a_run(folder, 48)
    with opened(folder, resume=False) as journal:
        assert journal.parts == []
    assert not caplog.records


def test_the_first_run_begins(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(folder) as journal:
        assert journal.left == [] and not was_begun(folder)
        journal.begin()
        assert was_begun(folder)
    assert not caplog.records


# -- damage ---------------------------------------------------------------------------------------


def test_a_line_that_was_cut_off_is_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At whichever byte: the rest goes on from what was recorded before it."""
    left_by_a_run(folder, 48, 96)
    whole = (folder / RECORDS).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in (last, last + 1, last + 20, len(whole) - 1):
        (folder / RECORDS).write_bytes(whole[:length])
        assert finished_frames(folder) == 48
        with opened(folder) as journal:
            assert [part.stop for part in journal.parts] == [48]
            journal.begin()
        (folder / "000000048.part").write_bytes(bytes(96))
    assert not caplog.records


@pytest.mark.parametrize("damage", ["flip", "empty", "first", "format", "text", "gone"])
def test_a_damaged_journal_starts_anew(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    left_by_a_run(folder, 48, 96)
    path = folder / RECORDS
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    flipped = bytearray(whole)
    flipped[len(lines[0]) + 30] ^= 1
    path.write_bytes(
        {
            "flip": bytes(flipped),
            "empty": b"",
            "first": lines[0][:-5],
            "format": b'5b2b9a7a {"format": 0}\n',
            "text": b"This is a letter.\n",
            "gone": b"".join(lines[1:]),
        }[damage]
    )
    with opened(folder) as journal:
        assert journal.parts == []
    assert len(caplog.records) == 1 and "damaged" in caplog.text and "anew" in caplog.text


@pytest.mark.parametrize(("stop", "size"), [(48, 47), (96, 95), (48, None), (96, None)])
def test_parts_from_a_changed_file_on_are_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture, stop: int, size: int | None
) -> None:
    left_by_a_run(folder, 48, 96, 144)
    file = folder / f"{stop - 48:09d}.part"
    file.unlink() if size is None else file.write_bytes(bytes(size))
    with opened(folder) as journal:
        assert [part.stop for part in journal.parts] == list(range(48, stop, 48))
        journal.begin()
        assert "000000096.part" not in names(folder)
    assert f"frames from {stop - 48} on" in caplog.text


# -- two runs at once -----------------------------------------------------------------------------


def test_a_second_run_refuses_and_names_the_first(folder: Path) -> None:
    with opened(folder) as journal:
        journal.begin()
        put(journal, 48)
        with pytest.raises(InputError, match=rf"o\.mkv: process {os.getpid()} on "), opened(folder):
            pass
        assert names(folder) == ["000000000.part", RECORDS, LOCK]
    with opened(folder) as journal:
        assert len(journal.parts) == 1


def test_a_dead_process_holds_nothing(
    folder: Path, holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    process = holder(folder / LOCK)
    try:
        with pytest.raises(InputError, match="another process"), opened(folder):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with opened(folder) as journal:
            assert journal.parts == []
    finally:
        process.kill()
        process.wait()


# -- the disk -------------------------------------------------------------------------------------


def test_a_full_disk_while_a_part_is_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_run(folder, 48)
    with monkeypatch.context() as patch, opened(folder) as journal:
        journal.begin()
        (folder / "000000048.part").write_bytes(bytes(96))

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot write o\.mkv: No space left"):
            journal.add(Part(48, 96, (("000000048.part", 96),)))
        assert [part.stop for part in journal.parts] == [48]
    with opened(folder) as journal:
        assert journal.parts[0].stop == 48


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "o.mkv"
    folder = target.with_name(".o.mkv.resume")
    with (
        pytest.raises(InputError, match=r"cannot write .*o\.mkv: Not a directory"),
        Journal.open(folder, str(target), KEY, folder),
    ):
        pass


@pytest.fixture(autouse=True)
def every_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dtg_restore")
