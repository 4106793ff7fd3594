"""Refinement and super-resolution at once: the same frames, in order, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine import run as module
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.errors import Interrupted
from dtg_restore.engine.plan import make_plan, upscale_memory
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.run import why_in_turns
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.engine.types import Chunk, Progress

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]


@pytest.fixture
def sr_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net, path = MiniSR(2, 8, 2), tmp_path / "sr.safetensors"
    torch.nn.init.normal_(net.tail.weight, std=0.05)
    config = {"kind": "mini", "scale": 2, "width": 8, "depth": 2}
    save_checkpoint(path, net.state_dict(), config, {})
    return path


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if there were room; no thread outlives the test."""
    monkeypatch.setattr(module, "why_in_turns", lambda *_: [])
    yield
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def restorer(load: Load, sr_weights: Path) -> Restorer:
    return load(sr=str(sr_weights))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


@pytest.mark.parametrize("num_frames", [1, 4, 5, 13])
def test_frames_are_the_same(
    restorer: Restorer, clip: Clip, num_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = clip(num_frames, 16, 16)
    want = restorer.restore(frames)
    threads: set[str] = set()

    def refine(self: Refiner, *args: Any) -> Tensor:
        threads.add(threading.current_thread().name)
        return plain(self, *args)

    plain = Refiner.__call__
    monkeypatch.setattr(Refiner, "__call__", refine)
    monkeypatch.setattr(module, "why_in_turns", lambda *_: [])
    assert torch.equal(restorer.restore(frames), want)
    assert threads == {"ahead"}


def test_two_streams_at_once(beside: None, restorer: Restorer, clip: Clip) -> None:
    """Of one backbone: chunks of both take turns at it."""
    a, b = clip(6, 8, 8), clip(6, 16, 8, seed=1)
    pairs = list(zip(restorer.stream(a), restorer.stream(b), strict=True))
    assert torch.equal(torch.stack([x for x, _ in pairs]), restorer.restore(a))
    assert torch.equal(torch.stack([y for _, y in pairs]), restorer.restore(b))


class Gate:
    """Refinement that counts its chunks and waits before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, index: int):
        self.begun, self.opened, plain = 0, threading.Event(), Refiner.__call__

        def refine(refiner: Refiner, frames: Tensor, chunk: Chunk, on_step: Any = None) -> Tensor:
            self.begun += 1
            if chunk.index == index:
                assert self.opened.wait(10)
            return plain(refiner, frames, chunk, on_step)

        monkeypatch.setattr(Refiner, "__call__", refine)


def test_a_frame_does_not_wait_for_the_next_chunk(
    beside: None, restorer: Restorer, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, 1)
    stream = restorer.stream(clip(8, 16, 16))
    next(stream)
    next(stream)  # two of the first chunk's frames are its own
    wait_for(lambda: gate.begun == 2)  # the second one began meanwhile
    gate.opened.set()
    assert sum(1 for _ in stream) == 6


def test_refinement_is_one_chunk_ahead(
    beside: None, restorer: Restorer, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, -1)
    stream = restorer.stream(clip(40, 16, 16))
    next(stream)
    wait_for(lambda: gate.begun == 2)
    time.sleep(0.3)
    assert gate.begun <= 3  # the third one begins when the queue holds frames of the second
    stream.close()


def test_a_stream_that_is_left_ends_in_the_middle_of_a_chunk(
    beside: None, restorer: Restorer, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, done = Gate(monkeypatch, 1), []
    told = module.Run._tell
    monkeypatch.setattr(module.Run, "_tell", lambda run, p: (done.append(p), told(run, p)))
    stream = restorer.stream(clip(8, 16, 16))
    next(stream)
    wait_for(lambda: gate.begun == 2)
    threading.Timer(0.1, gate.opened.set).start()
    stream.close()
    steps = [p for p in done if p.stage == "refine"]
    assert [(p.done, p.total) for p in steps] == [(1, 2), (2, 2)]  # of the first chunk alone


@pytest.mark.parametrize("stage", ["source", "refine", "upscale"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_errors_pass_through(
    beside: None,
    restorer: Restorer,
    clip: Clip,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    kind: type[BaseException],
) -> None:
    def fail(*_: Any) -> Any:
        raise kind("in the second chunk")

    def source() -> Iterator[Tensor]:
        yield from clip(5, 16, 16)
        if stage == "source":
            fail()
        yield from clip(5, 16, 16)

    stream = restorer.stream(source())
    frames = [next(stream)]
    if stage == "refine":
        monkeypatch.setattr(Refiner, "_encode", fail)
    if stage == "upscale":
        monkeypatch.setattr(type(restorer.sr), "upscale", fail)
    with pytest.raises(kind, match="in the second chunk"):
        frames += stream
    assert len(frames) < 10


def test_files_progress_and_timeline(
    beside: None, restorer: Restorer, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    report = restorer.restore_file(
        pictures(clip(13, 16, 16)), tmp_path / "out", on_progress=seen.append
    )
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)
    assert [p.done for p in seen if p.stage == "restore"] == list(range(1, 14))
    assert [p.done for p in seen if p.stage == "refine"] == [1, 2] * 6
    stages = {row["stage"] for row in report["timeline"]}
    parts = {"refine/encode", "refine/sample", "refine/decode"}
    assert stages == {"shots", "decode", "refine", "upscale", "encode"} | parts
    assert stages == report["overlap"]["busy"].keys()
    assert 0 <= report["overlap"]["share"] <= 1 and report["overlap"]["in_turns"] == []


def test_cancel_in_the_other_thread(
    beside: None, restorer: Restorer, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        restorer.restore_file(
            pictures(clip(13, 16, 16)),
            tmp_path / "out.mkv",
            codec="ffv1",
            cancel=lambda: threading.current_thread().name == "ahead",
        )
    assert not list(tmp_path.glob("*out*"))


# -- where there is room --------------------------------------------------------------------------


def test_room(restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, size = torch.device("cpu"), torch.device("cuda:0"), (64, 64)
    plan, sr = make_plan(restorer.config, *size), restorer.sr
    assert sr is not None
    assert why_in_turns(plan, sr, cpu, size) == ["both stages would share the processor"]
    assert why_in_turns(plan, None, cuda, size) == why_in_turns(None, sr, cuda, size)
    needed = plan.memory.device + upscale_memory(sr.facts, *size, "cuda")
    for has, fits in ((None, True), (needed, True), (needed - 1, False)):
        monkeypatch.setattr(module, "memory_size", lambda _, has=has: has)
        assert (why_in_turns(plan, sr, cuda, size) == []) is fits


def test_large_frames_take_more_on_a_gpu(restorer: Restorer) -> None:
    """Its tiles are larger."""
    assert restorer.sr is not None
    facts = restorer.sr.facts
    assert upscale_memory(facts, 1080, 1920, "cuda") > upscale_memory(facts, 1080, 1920)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(load: Load, sr_weights: Path, clip: Clip, monkeypatch: Any) -> None:
    restorer = load(sr=str(sr_weights), device="cuda", runtime="eager")
    frames = clip(13, 64, 64)
    got = restorer.restore(frames)
    monkeypatch.setattr(module, "why_in_turns", lambda *_: ["asked for"])
    assert torch.equal(got, restorer.restore(frames))
