"""What decides the bytes of a run's output, as plain data by the names that a user knows.

Two runs with one key give the same bytes, so one may go on with what the other has finished.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...kernels import ENV, native
from .. import report
from ..backbones import locate
from ..bundle.hashes import engine_sources_sha256, source_sha256
from ..bundle.settings import settled
from ..checkpoint import weights_file
from ..config import RestoreConfig
from ..devices import resolve_device
from ..errors import InputError
from ..media.paths import is_sequence_input, list_sequence
from ..shots import given_shots

ENDS = 1 << 20  # bytes at either end of a video that are read for its fingerprint
FILES = ("backbone", "sr", "vae", "prompt_embeds")  # settings that may name files
# Decided by the machine where they are left open, and then told by it.
OF_THE_MACHINE = ("device", "threads")


def run_key(
    config: RestoreConfig,
    source: str,
    frames: tuple[int, int | None],
    output: Mapping[str, Any],
) -> dict[str, Any]:
    """The key of a run over `frames` (start, stop) of `source`.

    `output` is how the result is written.  Where models and input lie is not in the key, what they
    are is.
    """
    settings = {n: v for n, v in asdict(config).items() if n not in (*FILES, *OF_THE_MACHINE)}
    models = {f"the model of {n}": _model(n, getattr(config, n)) for n in FILES}
    device = resolve_device(settled(config).device)
    machine = {f"the machine's {n}": v for n, v in report.machine(device).items()}
    versions = {f"the version of {n}": v for n, v in report.versions().items()}
    return {
        **settings,
        **models,
        **output,
        **machine,
        **versions,
        "shots": given_shots(config.shots) or config.shots,
        "frames": _as_option(*frames),
        "the input": fingerprint(source),
        "the program": [engine_sources_sha256(), _native_library(), os.environ.get(ENV)],
    }


def _as_option(start: int, stop: int | None) -> str:
    """A range of frames as it is asked for: both ends included."""
    return "all" if (start, stop) == (0, None) else f"{start}-{'' if stop is None else stop - 1}"


def _native_library() -> str | None:
    return None if native.missing() else report.sha256(str(native.library().__file__))


def fingerprint(source: str) -> str:
    """SHA-256 over what tells a clip from another, wherever it lies: size, time of change, and both
    ends of a video; names, sizes and times of pictures."""
    try:
        if is_sequence_input(source):
            facts: list[Any] = [_file_facts(path, path.name) for _, path in list_sequence(source)]
        else:
            facts = [_file_facts(Path(source)), _ends(Path(source))]
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from None
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _file_facts(path: Path, *names: str) -> tuple[str | int, ...]:
    facts = path.stat()
    return (*names, facts.st_size, facts.st_mtime_ns)


def _ends(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, os.fstat(file.fileno()).st_size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def _model(setting: str, name: str | None) -> str | None:
    """What a name leads to: the hash of files, the name itself where it stands for no file."""
    if name is None or name == "none":
        return name
    path = locate(name).path if setting == "backbone" else weights_file(name)
    path = path if path.exists() else Path(name)  # of a folder
    return source_sha256(path) if path.exists() else name
