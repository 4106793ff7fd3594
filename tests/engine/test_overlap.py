"""Stages in threads: order, bounds, errors, and that no thread outlives its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dtg_restore.engine.overlap import ahead, behind


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"ahead", "behind"}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert threads() == set()


def wait_for(condition) -> None:
    """Fails after ten seconds; a slow machine only takes longer."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def test_ahead_keeps_the_order() -> None:
    assert list(ahead(range(100), depth=3)) == list(range(100))
    assert list(ahead([])) == []


def test_ahead_works_ahead_and_no_further() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    stream = ahead(items(), depth=3)
    assert next(stream) == 0
    wait_for(lambda: len(made) == 5)  # one was taken, three wait, one waits for room
    time.sleep(0.05)
    assert len(made) == 5
    stream.close()
    assert len(made) == 5


def test_ahead_raises_where_the_source_did() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the file is cut")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="the file is cut"):
        next(stream)


def test_ahead_runs_in_another_thread() -> None:
    def items() -> Iterator[str]:
        yield threading.current_thread().name

    assert list(ahead(items())) == ["ahead"]


def test_closing_lets_a_long_item_be_given_up() -> None:
    stop, given_up = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        given_up.append(stop.wait(10))
        raise OSError("nobody asks any more")

    stream = ahead(items(), stop=stop)
    assert next(stream) == 1
    stream.close()
    assert given_up == [True]


def test_behind_consumes_everything_in_order() -> None:
    seen: list[int] = []
    with behind(seen.append, depth=2) as give:
        for i in range(100):
            give(i)
    assert seen == list(range(100))


def test_behind_holds_a_fast_maker_back() -> None:
    release, seen, given = threading.Event(), [], []

    def slow(item: int) -> None:
        release.wait(10)
        seen.append(item)

    def make(give) -> None:
        for i in range(20):
            give(i)
            given.append(i)

    with behind(slow, depth=2) as give:
        maker = threading.Thread(target=make, args=(give,))
        maker.start()
        wait_for(lambda: len(given) == 3)  # one is being consumed, two wait
        time.sleep(0.05)
        assert len(given) == 3 and not seen
        release.set()
        maker.join()
    assert seen == list(range(20))


@pytest.mark.parametrize("items", [1, 30])
def test_behind_raises_what_the_consumer_raised(items: int) -> None:
    """At a later call, or on leaving where there is none."""

    def consume(item: int) -> None:
        raise OSError(f"disk full at {item}")

    with pytest.raises(OSError, match="disk full at 0"), behind(consume, depth=2) as give:
        for i in range(items):
            give(i)


def test_behind_finishes_what_it_was_given_where_the_block_fails() -> None:
    release, seen = threading.Event(), []

    def slow(item: int) -> None:
        release.wait(10)
        seen.append(item)

    with pytest.raises(KeyboardInterrupt), behind(slow, depth=5) as give:
        for i in range(4):
            give(i)
        threading.Timer(0.1, release.set).start()
        raise KeyboardInterrupt
    assert seen == list(range(4))
