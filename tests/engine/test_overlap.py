"""Stages in threads: order, bounds, errors, and that no thread outlives its work."""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dtg_restore.engine.media.base import Reader, Writer
from dtg_restore.engine.overlap import DEPTH, ahead, behind
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.types import Chunk


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"ahead", "behind"}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert threads() == set()


def wait_for(condition) -> None:
    """Fails after ten seconds; a slow machine only takes longer."""
    end = time.monotonic() + 60
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


# -- signals ---------------------------------------------------------------------------------------


class Stopped(BaseException):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[..., object]]:
    """Has `Stopped` raised in the main thread after some seconds, and again, as signals do it."""

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    yield lambda first, every=0.3: signal.setitimer(signal.ITIMER_REAL, first, every)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def quiet() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_signal_while_the_last_items_are_consumed(alarm: Callable[..., object]) -> None:
    """It is raised when the consumer has come to its end, however often it comes."""
    seen: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.1)
        seen.append(item)

    with pytest.raises(Stopped):
        try:
            with behind(slow, depth=1) as give:
                give(0)
                give(1)
                alarm(0.02, 0.03)
        finally:
            quiet()
            assert seen == [0, 1] and not threads()


def test_a_signal_while_a_maker_is_waited_for(alarm: Callable[..., object]) -> None:
    ended: list[bool] = []

    def items() -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        ended.append(True)

    stream = ahead(items())
    assert next(stream) == 1
    alarm(0.02, 0.03)
    with pytest.raises(Stopped):
        try:
            stream.close()
        finally:
            quiet()
            assert ended and not threads()


# -- of a run over files ---------------------------------------------------------------------------


class Watched:
    """Counts frames that were read and written, and input frames that are alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.read = self.written = self.alive = self.ahead = self.most = 0
        self.writing, self.reading = threading.Event(), threading.Event()
        self.on_write: Callable[[int], None] = lambda index: None
        self.on_read: Callable[[int], None] = lambda index: None
        frames, write = Reader.__iter__, Writer.write

        def watched(reader: Reader) -> Iterator[Tensor]:
            self.read = self.most = 0  # a clip may be looked through before it is restored
            for frame in frames(reader):
                self.on_read(self.read)
                self.read += 1
                self.alive += 1
                self.most = max(self.most, self.alive)
                weakref.finalize(frame, self._lost)
                yield frame

        def slow(writer: Writer, *args: Any) -> None:
            self.ahead = max(self.ahead, self.read - self.written)
            self.on_write(self.written)
            write(writer, *args)
            self.written += 1

        monkeypatch.setattr(Reader, "__iter__", watched)
        monkeypatch.setattr(Writer, "write", slow)

    def _lost(self) -> None:
        self.alive -= 1


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(
    load: Callable[..., Any], clip: Callable[..., Tensor], pictures: Callable[..., Path],
    tmp_path: Path,
) -> Run:  # fmt: skip
    """Restores a clip of so many frames, in chunks of 4 that share 2, as FFV1."""

    def run(num_frames: int, **settings: Any) -> dict[str, Any]:
        source, target = pictures(clip(num_frames, 16, 16)), tmp_path / "out.mkv"
        watched = settings.pop("watch", lambda: None)
        restorer = load(steps=1, guidance="none")
        watched()
        return restorer.restore_file(source, target, codec="ffv1", **settings)

    return run


CHUNK, OVERLAP = 4, 2
# A queue on each side, an item in the hands of each of its two ends, and the chunks in between.
BOUND = 2 * (DEPTH + 2) + CHUNK + OVERLAP


def test_a_slow_writer_holds_the_reader_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Watched] = []

    def watch() -> None:
        seen.append(Watched(monkeypatch))
        seen[0].on_write = lambda index: time.sleep(0.02)

    run(60, watch=watch)
    assert seen[0].written == seen[0].read == 60
    assert DEPTH < seen[0].ahead <= BOUND  # it ran ahead, but not to the end
    assert seen[0].most <= DEPTH + 2 + CHUNK + OVERLAP
    assert seen[0].alive == 0


def test_stages_run_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first frame is being written, others are read and the next chunk is refined."""
    begun: list[int] = []
    plain = Refiner.__call__

    def refine(refiner: Refiner, frames: Tensor, chunk: Chunk, on_step: Any = None) -> Tensor:
        begun.append(chunk.index)
        return plain(refiner, frames, chunk, on_step)

    def watch() -> None:
        watched = Watched(monkeypatch)

        def on_write(index: int) -> None:
            if index == 0:
                wait_for(lambda: watched.read > CHUNK + 1 and len(begun) > 1)

        watched.on_write = on_write

    monkeypatch.setattr(Refiner, "__call__", refine)
    report = run(20, watch=watch)
    spans = {stage: rows_of(report, stage) for stage in ("decode", "refine", "encode")}
    first = spans["encode"][0]
    for stage in ("decode", "refine"):
        assert any(row["start"] < first["end"] and row["end"] > first["start"]
                   for row in spans[stage])  # fmt: skip
    assert report["overlap"]["share"] > 0


def rows_of(report: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    return [row for row in report["timeline"] if row["stage"] == stage]


@pytest.mark.parametrize("stage", ["read", "refine", "write"])
@pytest.mark.parametrize("index", [0, 5])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_stage_that_fails_ends_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stage: str, index: int, kind: type[BaseException],
) -> None:  # fmt: skip
    """No deadlock, no thread that stays, nothing under the target's name, and its own error."""

    def fail(number: int) -> None:
        if number == index:
            raise kind("of this stage")

    def watch() -> None:
        watched = Watched(monkeypatch)
        if stage == "read":
            watched.on_read = fail
        if stage == "write":
            watched.on_write = fail

    plain = Refiner.__call__

    def refine(refiner: Refiner, frames: Tensor, chunk: Chunk, on_step: Any = None) -> Tensor:
        fail(chunk.start + 1 if index else 0)
        return plain(refiner, frames, chunk, on_step)

    if stage == "refine":
        monkeypatch.setattr(Refiner, "__call__", refine)
    raised: list[BaseException] = []

    def work() -> None:
        with pytest.raises(kind, match="of this stage") as error:
            run(20, watch=watch)
        raised.append(error.value)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "deadlock"
    assert raised and not threads()
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1, 0.15, 0.2])
def test_a_signal_at_any_moment_ends_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alarm: Callable[..., object],
    seconds: float,
) -> None:  # fmt: skip
    watched: list[Watched] = []

    def watch() -> None:
        watched.append(Watched(monkeypatch))
        watched[0].on_write = lambda index: time.sleep(0.02)
        alarm(seconds)

    with pytest.raises(Stopped):
        try:
            run(20, watch=watch)
        finally:
            quiet()
    assert watched[0].written < 20
    assert not threads() and not (tmp_path / "out.mkv").exists()
