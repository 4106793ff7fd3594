"""Which paths mean a sequence of images, and which files belong to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, InputError

WRITTEN_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".dpx", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*WRITTEN_SUFFIXES, ".bmp", ".webp")
_COUNTER = re.compile(r"%0?(\d*)d|(#+)")
_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part(\.\w+)")
# A minus is a sign behind a dot, an underscore or nothing: `a.-3`, but not `shot-3`.
_LAST_DIGITS = re.compile(r"((?:(?<![^._])-)?\d+)(?=\D*$)")


@dataclass(frozen=True)
class SequencePattern:
    """File names `prefix + zero-padded number + suffix` in one folder."""

    folder: Path
    prefix: str
    digits: int
    suffix: str

    def file(self, number: int) -> Path:
        return self.folder / f"{self.prefix}{number:0{self.digits}d}{self.suffix}"

    def number(self, name: str) -> int | None:
        """The number in a file name, or None if the name does not fit."""
        middle = name.removeprefix(self.prefix).removesuffix(self.suffix)
        fits = name == f"{self.prefix}{middle}{self.suffix}" and re.fullmatch(r"-?\d+", middle)
        return int(middle) if fits and len(middle) >= self.digits else None


def parse_pattern(path: str) -> SequencePattern | None:
    """`dir/a_%04d.png` or `dir/a_####.png`; None where the file name has no counter."""
    folder, name = os.path.split(path)
    counters = list(_COUNTER.finditer(name))
    if not counters or not is_image(name):
        return None
    if len(counters) > 1:
        raise ConfigError(f"{path} holds more than one frame counter")
    counter = counters[0]
    digits = len(counter[2]) if counter[2] else int(counter[1] or 1)
    return SequencePattern(Path(folder), name[: counter.start()], digits, name[counter.end() :])


def is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_sequence_input(path: str) -> bool:
    """A folder, a pattern, or a single picture."""
    return os.path.isdir(path) or is_image(path)


def is_sequence_output(path: str) -> bool:
    """A folder (existing, a trailing separator, or no suffix), or a pattern of pictures."""
    as_folder = path.endswith(("/", os.sep)) or not Path(path).suffix
    return as_folder or os.path.isdir(path) or is_image(path)


def output_pattern(path: str, source: str | None = None) -> SequencePattern:
    """Names of the files that a sequence is written to.

    A folder gets `000000.png` and so on, of the type of `source` where that is a sequence of a
    type that is written.
    """
    pattern = parse_pattern(path)
    if pattern is None and is_image(path) and not os.path.isdir(path):
        raise ConfigError(
            f"{path} names one picture; for a sequence give a folder or a pattern "
            f"such as {Path(path).stem}_%04d.png"
        )
    pattern = pattern or SequencePattern(Path(path), "", 6, _suffix_like(source))
    if pattern.suffix.lower() not in WRITTEN_SUFFIXES:
        known = ", ".join(WRITTEN_SUFFIXES)
        raise ConfigError(f"image sequences are written as {known}, not {pattern.suffix}")
    return pattern


def _suffix_like(source: str | None) -> str:
    if source is None or not is_sequence_input(source):
        return ".png"
    suffix = list_sequence(source)[0][1].suffix.lower()
    return suffix if suffix in WRITTEN_SUFFIXES else ".png"


def remove_leftovers(pattern: SequencePattern, first: int, last: int | None) -> None:
    """Remove what a killed process has left of writing the pictures `first .. last`."""
    if not os.path.isdir(pattern.folder):
        return
    for file in pattern.folder.glob(f".*{pattern.suffix}"):
        match = _LEFTOVER.fullmatch(file.name)
        number = pattern.number(f"{match[1]}{match[2]}") if match else None
        if number is not None and first <= number and (last is None or number <= last):
            file.unlink(missing_ok=True)


def list_sequence(path: str) -> list[tuple[int, Path]]:
    """(number, file) of a sequence, by number.

    In a folder every picture counts, and its number is the last run of digits in its name; where
    a name has none, or two share one, the pictures are numbered in the order of their names.
    One picture has the number of its name, too.

    Raises
    ------
    InputError : nothing there, or the folder cannot be read.
    """
    pattern = parse_pattern(path)
    folder = pattern.folder if pattern else Path(path)
    if pattern is None and not os.path.isdir(folder):
        return _number([folder])
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from None
    if pattern:
        found = [(pattern.number(name), folder / name) for name in names]
        files = [(number, file) for number, file in found if number is not None]
    else:
        files = _number([folder / name for name in names if is_image(name)])
    if not files:
        raise InputError(f"no pictures in {path}")
    return sorted(files)


def sequences_in(files: Iterable[Path]) -> list[str]:
    """The patterns that file names follow, by their last run of digits, in order of the names."""
    hashes = [f"{_LAST_DIGITS.sub('####', file.stem)}{file.suffix}" for file in files]
    return sorted(set(hashes))


def _number(files: list[Path]) -> list[tuple[int, Path]]:
    matches = [_LAST_DIGITS.search(file.stem) for file in files]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) == len(files):
        return list(zip(numbers, files, strict=True))
    return list(enumerate(files))
