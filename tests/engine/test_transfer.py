"""Parts on their way to the host, with events of a device that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.transfer import brought, landing

CPU = torch.device("cpu")


def test_on_one_device_nothing_is_copied() -> None:
    parts = [torch.zeros(2), torch.ones(3)]
    assert [a is b for a, b in zip(brought(parts, CPU), parts, strict=True)] == [True, True]
    assert list(brought([], CPU)) == []


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_part_travels_while_the_next_one_is_made(count: int) -> None:
    log: list[str] = []

    class Arrival:
        def __init__(self, part: Tensor) -> None:
            self.name = int(part[0])
            log.append(f"sent {self.name}")

        def synchronize(self) -> None:
            log.append(f"waited {self.name}")

    def parts() -> Iterator[Tensor]:
        for i in range(count):
            log.append(f"made {i}")
            yield torch.full((2,), float(i))

    got = list(landing(parts(), Arrival))
    assert [int(part[0]) for part in got] == list(range(count))
    for i in range(count - 1):
        assert log.index(f"sent {i + 1}") < log.index(f"waited {i}")
        if i:  # two are on their way at most
            assert log.index(f"waited {i - 1}") < log.index(f"made {i + 1}")
    assert sum(entry.startswith("waited") for entry in log) == count


def test_what_landed_is_memory_of_the_caller() -> None:
    """Not the pinned memory, which the next part takes."""

    class Arrived:
        def __init__(self, _: Tensor) -> None: ...

        def synchronize(self) -> None: ...

    part = torch.zeros(2)
    (got,) = landing([part], Arrived)
    assert torch.equal(got, part) and got.data_ptr() != part.data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_from_a_gpu() -> None:
    parts = [torch.full((1 << 20,), float(i), device="cuda:0") for i in range(6)]
    got = list(brought((part * 2 for part in parts), CPU))
    assert [int(part.unique()) for part in got] == [0, 2, 4, 6, 8, 10]
    assert not any(part.is_pinned() for part in got)
