"""Ctrl-C and the polite signals end a run in order."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

# A second signal within these seconds is ignored: the cleaning up of the first is under way.
PATIENCE = 3.0


class Stopped(BaseException):
    """A signal asked the run to end.  Like KeyboardInterrupt, not to be caught by accident."""


class Stop:
    """While entered, SIGINT, SIGTERM and SIGHUP raise `Stopped` in the main thread.

    A signal that is ignored when we start (nohup, background jobs) stays ignored.  `requested`
    serves as the engine's `cancel`, in case the exception fell where Python drops exceptions;
    `reason` is what it said.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._time: float | None = None
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        return self._time is not None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._time is None or now - self._time > PATIENCE:
            self._time = now
            self.reason = f"interrupted by {signal.Signals(number).name}"
            raise Stopped(self.reason)
