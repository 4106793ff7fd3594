"""The conditioning of a run as compiled networks take it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.dit import BRANCHES, Conditioning, rows_of
from ..codecs.patch import Phase


class Text:
    """Keys and values of both branches, (depth, 2, heads, L, head_dim) each.

    Those of a call's samples are laid out once, as they are constant over a run.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self._both = keys, values
        self._laid: dict[tuple[int, ...], tuple[Tensor, ...]] = {}

    def of(self, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
        """(depth, samples, heads, L, head_dim) each, of samples that belong to branches `rows`."""
        if rows not in self._laid:
            self._laid[rows] = tuple(
                torch.cat([part[:, row : row + 1] for row in rows], 1) for part in self._both
            )
        return self._laid[rows]

    def layers(self, rows: tuple[int, ...]) -> tuple[tuple[Tensor, Tensor], ...]:
        """One pair a layer, (branches, heads, L, head_dim) each."""
        branches = slice(rows[0], rows[-1] + 1)
        keys, values = (part[:, branches].unbind() for part in self._both)
        return tuple(zip(keys, values, strict=True))


class Tables(NamedTuple):
    """What every node of a run needs of one expert: `modulation` (depth, 2, nodes, 6, D), `final`
    (2, nodes, 2, D), and what is the same for all."""

    modulation: Tensor
    final: Tensor
    text: Text


class Part(NamedTuple):
    """Consecutive samples of a batch that one expert evaluates; `rows` are their branches.

    `modulation` (depth, samples, 6, D), `final` (samples, 2, D).
    """

    expert: int
    rows: tuple[int, ...]
    modulation: Tensor
    final: Tensor
    text: Text
    phase: Phase

    def conditioning(self) -> Conditioning:
        """The same as an eager network takes it."""
        return Conditioning(self.modulation, self.final, self.text.layers(self.rows), self.phase)


class BundleContext:
    """The conditioning of every node: tables an expert, and which expert sees which node."""

    def __init__(
        self, tables: dict[int, Tables], chosen: dict[str, list[int]], phases: Sequence[Phase]
    ):
        self._tables, self._chosen, self._phases = tables, chosen, phases

    def at(self, index: int, branches: Sequence[str], repeat: int) -> tuple[Part, ...]:
        """Both branches in one part unless their times belong to different experts."""
        parts = []
        for expert, group in groupby(branches, lambda branch: self._chosen[branch][index]):
            names = list(group)
            tables, rows = self._tables[expert], rows_of(names)
            parts.append(
                Part(
                    expert,
                    tuple(BRANCHES.index(name) for name in names for _ in range(repeat)),
                    tables.modulation[:, rows, index].repeat_interleave(repeat, 1),
                    tables.final[rows, index].repeat_interleave(repeat, 0),
                    tables.text,
                    self._phases[index % len(self._phases)],
                )
            )
        return tuple(parts)
