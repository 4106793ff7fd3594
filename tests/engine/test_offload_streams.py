"""The streams of an offload to a GPU, played through without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine import offload
from dtg_restore.engine.offload import BlockOffload

CPU = torch.device("cpu")


class Stream:
    """Of a device that does nothing until `run`: work waits here in order."""

    def __init__(self) -> None:
        self.work: list[Callable[[], bool]] = []  # each tells whether it could be done

    def add(self, job: Callable[[], object]) -> None:
        self.work.append(lambda: (job(), True)[1])

    def wait_event(self, event: Event) -> None:
        mark = event.mark  # as CUDA does: the latest record, nothing where there is none
        if mark is not None:
            self.work.append(lambda: bool(mark))


class Event:
    mark: list[bool] | None = None

    def record(self, stream: Stream) -> None:
        mark: list[bool] = []
        self.mark = mark
        stream.add(lambda: mark.append(True))


def run(streams: Sequence[Stream], choose: Callable[[], int]) -> None:
    """Do all work, one piece of a chosen stream after another."""
    while any(stream.work for stream in streams):
        order = sorted(range(len(streams)), key=lambda i: i != choose())
        for stream in (streams[i] for i in order):
            if stream.work and stream.work[0]():
                del stream.work[0]
                break
        else:
            pytest.fail("the streams wait for each other")


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("first", ["copies", "computing", "either"])
def test_streams_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, first: str, num_blocks: int
) -> None:
    """Whichever stream of a GPU is quicker, a block computes with its own weights."""
    computing, copies = Stream(), Stream()
    current = [computing]
    copy_now = torch.Tensor.copy_

    @contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(num_blocks))
    own = [float(block.bias.data[0]) for block in blocks]
    in_turn = BlockOffload(blocks, CPU)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    size = in_turn.device_bytes // 2
    in_turn._slots = tuple(offload._Slot(size, CPU, copies) for _ in range(2))

    def copy_later(target: Tensor, source: Tensor, non_blocking: bool) -> None:
        assert non_blocking
        current[-1].add(lambda: copy_now(target, source))

    monkeypatch.setattr(torch.Tensor, "copy_", copy_later)
    seen: list[tuple[int, float]] = []
    for _ in range(3):
        for index, block in enumerate(in_turn):
            bias = block.bias.data
            computing.add(lambda i=index, b=bias: seen.append((i, float(b[0]))))
    random = Random(0)
    run(
        [copies, computing],
        {"copies": lambda: 0, "computing": lambda: 1, "either": lambda: random.randrange(2)}[first],
    )
    assert seen == 3 * list(enumerate(own))
