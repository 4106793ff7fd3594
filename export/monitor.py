"""How far a build of TensorRT is, and how it is ended before that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ..engine.runtimes.tensorrt import library

LOOK_UP = 0.2  # seconds between looks for a signal

T = TypeVar("T")
OnProgress = Callable[[str, float], None]  # stage, share that is done


class Phases:
    """Phases that lie in each other, of some steps each, as one share.

    A phase counts as part of the step of its parent that is under way.  The share never falls,
    although phases come that nobody announced.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, int]] = []  # name and number of steps, outermost first
        self._done: dict[str, int] = {}
        self.share = 0.0

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        names = [opened for opened, _ in self._open]
        if parent in names:  # a sibling that was not closed
            del self._open[names.index(parent) + 1 :]
        self._open.append((name, max(1, num_steps)))
        self._done[name] = 0

    def complete(self, name: str, step: int) -> None:
        self._done[name] = max(self._done.get(name, 0), step + 1)
        width, share = 1.0, 0.0
        for opened, num_steps in self._open:
            share += width * min(self._done[opened], num_steps) / num_steps
            width /= num_steps
        self.share = max(self.share, min(share, 1.0))

    def finish(self, name: str) -> None:
        self._open = [entry for entry in self._open if entry[0] != name]


def make_monitor(report: Callable[[float], None] | None) -> Any:
    """What TensorRT tells its progress to, from threads of its own.

    `stop` ends the build at its next step.  So does what `report` raises; it is `problem` then, as
    nothing may be raised into the library.
    """
    base: Any = library().IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)  # the library asks for this form
            self.problem: BaseException | None = None
            self._is_stopped = False
            self._phases, self._lock = Phases(), threading.Lock()

        def stop(self) -> None:
            self._is_stopped = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.complete(phase_name, step)
                self._tell()
            return not self._is_stopped

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def _tell(self) -> None:
            if report is None or self._is_stopped:
                return
            try:
                report(self._phases.share)
            except BaseException as problem:
                self.problem, self._is_stopped = problem, True

    return Monitor()


def interruptible(build: Callable[[], T], monitor: Any) -> T:
    """`build()`, which a signal ends although the library would not notice it.

    Handlers of signals run in the main thread, between steps of Python: it waits here, and the
    library works in another one.  It looks up now and then, as another thread may get the signal.
    """
    with ThreadPoolExecutor(1, "tensorrt") as pool:
        future = pool.submit(build)
        try:
            while not wait([future], timeout=LOOK_UP).done:
                pass
            return future.result()
        except BaseException:
            monitor.stop()  # the pool waits for the build to end
            raise
