"""Stages that run at once: reading ahead and writing behind, through queues of bounded length.

A stage that is slower than its neighbours fills or empties its queue and then holds them back, so
memory stays bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH = 4  # frames that wait in a queue
POLL = 0.1  # seconds after which a blocked thread looks whether it is to stop


class _Failed:
    """An exception on its way to another thread."""

    def __init__(self, error: BaseException):
        self.error = error


_END = object()


class _Thread:
    """A thread that is outlasted: files that it works on must not be closed under it."""

    def __init__(self, name: str, work: Callable[[], None]):
        self._work, self._over = work, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.start = self._thread.start

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._over.set()

    def outlast(self, end: Callable[[], object]) -> None:
        """Call `end` and wait for the thread; what interrupts that is raised when it is over."""
        interrupt: BaseException | None = None
        while self._thread.ident is not None and not self._over.is_set():
            try:
                end()
                self._over.wait()  # a join that is interrupted takes the thread for dead
            except BaseException as error:
                interrupt = error
        if self._thread.ident is not None:
            self._thread.join()
        if interrupt is not None:
            raise interrupt


def ahead(
    items: Iterable[T], depth: int = DEPTH, stop: threading.Event | None = None
) -> Generator[T, None, None]:
    """The items; up to `depth` of them are made before they are asked for, in another thread.

    An exception of the iterable is raised in its place; closing the generator ends the thread, and
    waits for it.  That sets `stop`, so that an item which takes long can be given up by what makes
    it.
    """
    queue: Queue[Any] = Queue(depth)
    stop = stop or threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _put(queue, item, stop):
                    return
            _put(queue, _END, stop)
        except BaseException as error:
            _put(queue, _Failed(error), stop)

    thread = _Thread("ahead", work)
    try:
        thread.start()
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        thread.outlast(stop.set)


@contextmanager
def behind(consume: Callable[[T], object], depth: int = DEPTH) -> Iterator[Callable[[T], None]]:
    """A function that hands items to `consume` in a thread of its own, in order.

    It waits while `depth` items are in the queue.  An exception of `consume` is raised by the next
    call, or on leaving.  Everything that was given is consumed when the block is left, also where
    that is by an exception, or where a signal interrupts the waiting.
    """
    queue: Queue[Any] = Queue(depth)
    failed = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while (item := queue.get()) is not _END:
                consume(item)
        except BaseException as error:
            errors.append(error)
            failed.set()

    def give(item: Any) -> None:
        if not _put(queue, item, failed):
            raise errors[0]

    thread = _Thread("behind", work)
    try:
        thread.start()
        yield give
    finally:
        thread.outlast(lambda: _put(queue, _END, failed))
    if errors:
        raise errors[0]


def _put(queue: Queue[Any], item: Any, stop: threading.Event) -> bool:
    """False where `stop` was set before there was room."""
    while not stop.is_set():
        try:
            queue.put(item, timeout=POLL)
            return True
        except Full:
            continue
    return False
