"""Names to things that are built on demand.

A registry is one explicit list, so that everything that can be named is seen in one place, and
its factories are strings, so that looking at the list imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """`factory` is ".module:function", relative to this package; `facts` can be read unbuilt."""

    name: str
    factory: str
    facts: Any

    def build(self, *args: Any, **kwargs: Any) -> Any:
        module, function = self.factory.split(":")
        return getattr(import_module(module, package=__package__), function)(*args, **kwargs)


class Registry:
    """The entries of one kind of thing ("backbone", "SR model")."""

    def __init__(self, kind: str, entries: Sequence[Entry]):
        self.kind = kind
        self._entries = {entry.name: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise ValueError(f"two {kind} entries share a name")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> Entry:
        """The entry called `name`; ConfigError lists the known ones, the nearest first."""
        if name in self._entries:
            return self._entries[name]
        near = get_close_matches(name, self._entries, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown {self.kind} {name!r}: {hint}known are {', '.join(self._entries)}"
        )
