"""How a run is shown while it goes: as a bar, as lines, as JSON, or not at all.

Bar and lines go to stderr, the summary and JSON to stdout.  A reader that goes away ends the
report, not the run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..engine.errors import ConfigError
from .text import duration, rate, size

MODES = ("auto", "bar", "plain", "json", "none")
LABELS = {
    "load": "loading",
    "shots": "cutting",
    "refine": "refining",
    "restore": "writing",
    "calibrate": "calibrating",
    "export": "exporting",
    "check": "checking",
}


@dataclass(frozen=True)
class Status:
    """Where a run stands, in the figures of every form of report."""

    progress: Any
    elapsed: float

    @property
    def frames_per_second(self) -> float | None:
        """Counts the work in the chunk under way, so that it does not jump."""
        p = self.progress
        done = p.frames if not p.num_frames or p.fraction is None else p.fraction * p.num_frames
        return done / self.elapsed if done and self.elapsed > 0 else None

    @property
    def eta(self) -> float | None:
        share = self.progress.fraction
        return self.elapsed * (1 - share) / share if share else None

    def text(self) -> str:
        p = self.progress
        if p.stage == "shots":
            return f"looking for cuts in frame {p.done} of {p.total or '?'}"
        total = "?" if p.num_frames is None else p.num_frames
        speed = rate(self.frames_per_second)
        return f"{p.frames}/{total} frames  {speed} frames/s  ETA {duration(self.eta)}"

    def data(self) -> dict[str, Any]:
        return self.progress._asdict() | {
            "frames_per_second": self.frames_per_second,
            "eta_seconds": self.eta,
            "elapsed_seconds": round(self.elapsed, 3),
        }


def _saved(report: dict[str, Any]) -> int:
    """Evaluations that a tolerance has saved."""
    if report["elision"] is None:
        return 0
    cached = sum(report["caching"]["saved"].values())
    return report["elision"]["saved"] + report["reuse"]["saved"] + cached


def summary(report: dict[str, Any]) -> list[str]:
    """What was made and how long it took, on two lines."""
    output, seconds = report["output"], dict(report["seconds"])
    count, total = report["frames"]["count"], seconds.pop("total")
    saved = _saved(report)
    evaluations = f"{sum(report['evaluations'].values())} evaluations" + (
        f" ({saved} saved)" if saved else ""
    )
    counted = {name: value for name, value in seconds.items() if value >= 0.01 * total}
    stages = ", ".join(
        f"{name} {value:.2g}" if value < 1 else f"{name} {value:.1f}"
        for name, value in counted.items()
    )
    peak = ", ".join(f"{size(value)} ({k})" for k, value in report["peak_memory_bytes"].items())
    return [
        f"{output['path']}: {count} frames of {output['width']}x{output['height']} in "
        f"{duration(total)} ({rate(count / total)} frames/s), {evaluations}",
        f"seconds: {stages or 'none'}; peak memory {peak}",
    ]


class Form(NamedTuple):
    """What is shown of one kind of work: its first stage, its figures, the lines at its end."""

    stage: str
    status: Callable[[Any, float], Status]
    summary: Callable[[dict[str, Any]], list[str]]


RESTORATION = Form("refine", Status, summary)


class Reporter:
    """Says nothing; the base of those that do.

    `interval` is the least time in seconds between two reports of progress.
    """

    interval = 0.0

    def __init__(self, form: Form = RESTORATION) -> None:
        self._form = form
        self._start = self._shown = time.monotonic()
        self._last: Status | None = None  # that was told of, and ...
        self._seen: Status | None = None  # ... that was shown

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def begin(self) -> None:
        """The models are loaded: the clock starts."""
        self._start = time.monotonic()
        self._shown = self._start - self.interval

    def __call__(self, progress: Any) -> None:
        """The engine's `on_progress`."""
        now = time.monotonic()
        self._last = self._form.status(progress, now - self._start)
        if now - self._shown >= self.interval:
            self._shown, self._seen = now, self._last
            self.show(self._last)

    def show(self, status: Status) -> None:
        pass

    def finish(self, report: dict[str, Any]) -> None:
        pass

    def _print_summary(self, report: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            print("\n".join(self._form.summary(report)), flush=True)


class Plain(Reporter):
    """A line every few seconds, and one at the end: for logs."""

    interval = 3.0

    def __enter__(self) -> Reporter:
        self._print("loading")
        return self

    def show(self, status: Status) -> None:
        p = status.progress
        share = "  ?%" if p.fraction is None else f"{p.fraction:4.0%}"
        label = LABELS.get(p.stage, p.stage)
        self._print(f"[{duration(status.elapsed)}] {label:8} {share}  {status.text()}")

    def finish(self, report: dict[str, Any]) -> None:
        if self._last and self._last is not self._seen:
            self.show(self._last)
        self._print_summary(report)

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


class JsonLines(Reporter):
    """One object a line: events "load", "progress", "done"."""

    interval = 0.25

    def __enter__(self) -> Reporter:
        self._print("load", {})
        return self

    def show(self, status: Status) -> None:
        self._print("progress", status.data())

    def finish(self, report: dict[str, Any]) -> None:
        if self._last and self._last is not self._seen:
            self.show(self._last)
        self._print("done", {"report": report})

    def _print(self, event: str, data: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            print(json.dumps({"event": event} | data), flush=True)


class Bar(Reporter):
    """A bar for terminals."""

    interval = 0.05

    def __init__(self, form: Form = RESTORATION) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        super().__init__(form)
        columns = ("{task.description:8}", BarColumn(None), TaskProgressColumn())
        self._rich = Progress(
            *columns,
            TextColumn("{task.fields[text]}"),
            Elapsed(),
            console=Console(stderr=True),
            expand=True,
            transient=True,
        )
        self._task = self._rich.add_task(LABELS["load"], total=None, text="")

    def __enter__(self) -> Reporter:
        self._rich.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._rich.stop()

    def begin(self) -> None:
        super().begin()
        self._rich.reset(self._task, total=None, description=LABELS[self._form.stage])

    def show(self, status: Status) -> None:
        p = status.progress
        known = p.fraction is not None
        self._rich.update(
            self._task,
            description=LABELS.get(p.stage, p.stage),
            total=1.0 if known else None,
            completed=p.fraction if known else 0,
            text=status.text(),
        )

    def finish(self, report: dict[str, Any]) -> None:
        self._rich.stop()
        self._print_summary(report)


def make_reporter(mode: str, form: Form = RESTORATION) -> Reporter:
    """The reporter called `mode`; ConfigError for an unknown one."""
    if mode not in MODES:
        raise ConfigError(f"--progress is {mode!r}: it must be one of {', '.join(MODES)}")
    if mode == "auto":
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        mode = "bar" if is_terminal else "plain"
    return {"bar": Bar, "plain": Plain, "json": JsonLines, "none": Reporter}[mode](form)
