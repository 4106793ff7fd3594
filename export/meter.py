"""How far an export is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..engine.errors import Interrupted
from .recipe import Recipe

# About what a stage costs over the others of its bundle, by the first part of its name.
COSTS = {"condition": 1.0, "velocity": 4.0, "encode": 3.0, "decode": 4.0, "upscale": 1.0}
CODEC = ("encode", "encode", "decode", "decode")  # the first slice and the next


class Step(NamedTuple):
    """Parameters
    ----------
    stage : "calibrate", "load", "export" or "check".
    done, total : components that are finished, and all of them.
    component : the one that is under way; "" where none is.
    fraction : share of the work that is done, roughly.
    """

    stage: str
    done: int
    total: int
    component: str
    fraction: float


OnStep = Callable[[Step], None]
Cancel = Callable[[], bool]


class Meter:
    """Counts components by what they cost; `Interrupted` where `cancel` is asked and agrees."""

    def __init__(self, recipe: Recipe, on_progress: OnStep | None, cancel: Cancel | None):
        kinds = expected(recipe)
        self._total, self._all = len(kinds), sum(COSTS[kind] for kind in kinds)
        self._done, self._spent = 0, 0.0
        self._on_progress, self._cancel = on_progress, cancel

    def tell(self, stage: str, component: str = "", part: float = 0.0) -> None:
        """`part` is the share of the component that is done."""
        if self._cancel is not None and self._cancel():
            raise Interrupted("interrupted")
        if self._on_progress is not None:
            spent = self._spent + (part * COSTS[kind_of(component)] if component else 0.0)
            share = min(1.0, spent / self._all)
            self._on_progress(Step(stage, self._done, self._total, component, share))

    def part(self, component: str, share: float) -> None:
        self.tell("export", component, share)

    def finish(self, component: str) -> None:
        self._done += 1
        self._spent += COSTS[kind_of(component)]


def expected(recipe: Recipe) -> list[str]:
    """The kinds of all components of a bundle."""
    kinds = []
    if recipe.facts is not None:
        passes = sum(len(bucket.batches) for bucket in recipe.facts.buckets)
        kinds += len(recipe.facts.experts) * (["condition"] + passes * ["velocity"])
    if recipe.codec_tile is not None:
        kinds += CODEC
    if "sr" in recipe.sources:
        kinds.append("upscale")
    return kinds


def kind_of(component: str) -> str:
    return component.partition(".")[0].partition("_")[0]
