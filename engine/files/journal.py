"""What a run from file to file has finished, kept on the disk until the run is over.

The state lies in a hidden folder beside the output: a lock, which names its holder, the parts of a
video, and a file of records, one a line, each with its sum.  The first record is the key: whatever
decides the bytes of the output.  Only a run with the same key goes on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..disk import refusals_named
from ..errors import InputError
from ..lock import locked
from ..types import Numbers, Part

log = logging.getLogger("dtg_restore")

FORMAT = 1  # of the records: another number is not read
RECORDS, LOCK = "journal", "lock"
COMPLETE = "complete"  # the fact that all frames are finished
SHORT = 40  # letters of a value that is said where it has changed


class Damaged(Exception):
    """The records cannot be what was written."""


class Journal:
    """The state of one run.  Make one with `Journal.open`.

    Attributes
    ----------
    folder : for files of the run that survive the process.
    parts : what is finished, from the first frame of the run on without a gap.
    facts : what an earlier process has decided, as plain data by name; see `note`.
    left : numbers of the pictures that earlier runs may have left, so that those are replaced.
    """

    def __init__(self, folder: Path, target: str, key: Mapping[str, Any]):
        self.folder, self._target, self._key = folder, target, json.loads(json.dumps(key))
        self.parts: list[Part] = []
        self.facts: dict[str, Any] = {}
        self.left = numbers_left(folder)
        self._has_begun = False

    @property
    def num_frames(self) -> int:
        """Of the finished parts."""
        return self.parts[-1].stop if self.parts else 0

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, target: str, key: Mapping[str, Any], parts_in: Path, resume: bool = True
    ) -> Iterator[Journal]:
        """The state of the run that writes `target`, for this process alone.

        What an earlier one has finished is in `parts` where its `key` is the same and `resume` is
        on.  The folder goes when the run is over, or where nothing was finished since `begin`.

        Parameters
        ----------
        key : plain data by name, from which the output follows; the names are said where a value
            has changed.
        parts_in : the folder of the parts' files.

        Raises
        ------
        InputError : another process writes `target`, or the folder cannot be written.
        """
        with claimed(folder, target):
            journal = cls(folder, target, key)
            if resume and was_begun(folder):
                journal._read(parts_in)
            try:
                yield journal
            finally:
                if journal._has_begun and not journal.parts:
                    (folder / RECORDS).unlink(missing_ok=True)

    def begin(self, numbers: Numbers | None = None) -> None:
        """Put the state on the disk; to be called when nothing stands in the way of writing.

        Until then the state of an earlier run that is not gone on with stays as it is.

        Parameters
        ----------
        numbers : of the pictures that are written.
        """
        if numbers is not None and numbers not in self.left:
            self.left.append(numbers)
        head = {"format": FORMAT, "key": self._key, "numbers": self.left}
        records = [head, {"facts": self.facts}, *map(_record, self.parts)]
        with refusals_named(Path(self._target)):
            if not self._has_begun:
                self._has_begun = True
                _clear(self.folder, {RECORDS, LOCK, *self._files()})
            new = self.folder / f"{RECORDS}.new"
            with new.open("wb") as file:
                file.writelines(map(_line, records))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.folder / RECORDS)

    def add(self, part: Part) -> None:
        """Record a part whose files are on the disk."""
        self._append(_record(part))
        self.parts.append(part)

    def note(self, **facts: Any) -> None:
        """Record what a run that goes on must not decide anew."""
        self._append({"facts": facts})
        self.facts |= json.loads(json.dumps(facts))

    def finish(self) -> None:
        """The output has its name: the state is of no more use."""
        (self.folder / RECORDS).unlink(missing_ok=True)

    def _files(self) -> set[str]:
        return {name for part in self.parts for name, _ in part.files}

    def _append(self, record: Mapping[str, Any]) -> None:
        with refusals_named(Path(self._target)), (self.folder / RECORDS).open("ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, parts_in: Path) -> None:
        """Take over what an earlier run has recorded, or say why the run starts anew."""
        try:
            head, *records = _records(self.folder / RECORDS)
            if head["format"] != FORMAT:
                raise Damaged
            changed = changes(head["key"], self._key)
            facts = {k: v for record in records for k, v in record.get("facts", {}).items()}
            parts = [_part(record["part"]) for record in records if "part" in record]
        except (OSError, Damaged, ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s: the journal of the unfinished run is damaged, so the run starts anew",
                        self._target)  # fmt: skip
            return
        if changed:
            log.warning("%s: %s, so the run starts anew", self._target, ", ".join(changed))
            return
        self.facts, self.parts = facts, _whole(parts, parts_in)
        if len(self.parts) < len(parts):
            log.warning("%s: frames from %d on are made again, as their files have changed",
                        self._target, parts[len(self.parts)].start)  # fmt: skip


@contextmanager
def claimed(folder: Path, target: str) -> Iterator[None]:
    """Hold the state in `folder` alone; without records, it goes at the end.

    InputError, naming host and process, where another process holds it.
    """
    made = [path for path in (folder.parent, *folder.parent.parents) if not os.path.exists(path)]
    with locked(folder / LOCK, None, Path(target)) as held:
        if not held:
            raise InputError(f"cannot write {target}: {_holder(folder)} is writing it")
        with suppress(OSError):  # a full disk: it is but a word to others
            who = {"host": socket.gethostname(), "pid": os.getpid()}
            (folder / LOCK).write_text(json.dumps(who))
        try:
            yield
        finally:
            if not was_begun(folder):
                _clear(folder, {LOCK})
                (folder / LOCK).unlink(missing_ok=True)
                for path in (folder, *made):
                    with suppress(OSError):  # another process may have entered it
                        path.rmdir()


def was_begun(folder: Path) -> bool:
    """Whether an unfinished run has left its records."""
    return os.path.exists(folder / RECORDS)  # a name that is too long is none


def numbers_left(folder: Path) -> list[Numbers]:
    """Numbers of the pictures that unfinished runs may have left; empty where that is not known."""
    with suppress(OSError, Damaged, ValueError, KeyError, TypeError):
        head, _ = (folder / RECORDS).read_bytes().split(b"\n", 1)
        return [(first, last) for first, last in _parsed(head)["numbers"]]
    return []


def finished_frames(folder: Path) -> int:
    """How many frames an unfinished run has finished; 0 where there is none."""
    with suppress(OSError, Damaged, ValueError, KeyError, TypeError, IndexError):
        return [record["part"]["stop"] for record in _records(folder / RECORDS)
                if "part" in record][-1]  # fmt: skip
    return 0


def is_complete(folder: Path) -> bool:
    """Whether an unfinished run has finished all frames: its output may have its name already."""
    with suppress(OSError, Damaged, ValueError, KeyError, TypeError, AttributeError):
        return any(record.get("facts", {}).get(COMPLETE) for record in _records(folder / RECORDS))
    return False


def sweep(folder: Path, target: str) -> None:
    """Remove what a process has left that was killed before its records, or behind them."""
    if os.path.isdir(folder) and not was_begun(folder):
        with claimed(folder, target):
            pass


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What has changed between two keys, in words."""
    return [
        _change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _change(name: str, old: Any, new: Any) -> str:
    values = [json.dumps(value) for value in (old, new)]
    if max(map(len, values)) > SHORT:
        return f"{name} has changed"
    return "{} was {} and is {}".format(name, *values)


def _record(part: Part) -> dict[str, Any]:
    return {"part": {"start": part.start, "stop": part.stop, "files": part.files}}


def _part(data: Mapping[str, Any]) -> Part:
    return Part(data["start"], data["stop"], tuple((name, size) for name, size in data["files"]))


def _whole(parts: Sequence[Part], folder: Path) -> list[Part]:
    """Those from the first frame on without a gap whose files are as they were written."""
    whole: list[Part] = []
    for part in parts:
        if part.start != (whole[-1].stop if whole else 0) or part.damaged(folder):
            break
        whole.append(part)
    return whole


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _records(path: Path) -> list[dict[str, Any]]:
    """A line that a killed process has left unfinished is none; Damaged for any other."""
    *lines, _ = path.read_bytes().split(b"\n")
    if not lines:
        raise Damaged
    return [_parsed(line) for line in lines]


def _parsed(line: bytes) -> dict[str, Any]:
    digest, _, text = line.partition(b" ")
    if digest != b"%08x" % zlib.crc32(text):
        raise Damaged
    record: dict[str, Any] = json.loads(text)
    return record


def _holder(folder: Path) -> str:
    try:
        who = json.loads((folder / LOCK).read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _clear(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
