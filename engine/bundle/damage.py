"""Whether the files of a bundle are those that were written."""

from __future__ import annotations

from pathlib import Path

from .hashes import file_sha256
from .manifest import FileFacts, Manifest


def damage(folder: Path, manifest: Manifest) -> list[str]:
    """What of a bundle's files is not as it was written, a sentence each; all of them are read."""
    return [
        f"{name} {problem}"
        for name, facts in manifest.files.items()
        if (problem := _problem(folder / name, facts))
    ]


def _problem(path: Path, facts: FileFacts) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != facts.bytes:
        return f"has {path.stat().st_size} bytes, not {facts.bytes}"
    return None if file_sha256(path) == facts.sha256 else "is damaged: its SHA-256 differs"
