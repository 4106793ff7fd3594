"""Results on their way from a GPU to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor


def brought(parts: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The parts on `device`.

    From a GPU to the host a part travels while the next one is made, through pinned memory, of
    which two parts are held at most.
    """
    parts = iter(parts)
    for part in parts:
        if part.is_cuda and device.type == "cpu":
            yield from landing(chain((part,), parts), arrival)
        else:
            yield part.to(device)


def landing(parts: Iterable[Tensor], arrival: Callable[[Tensor], Any]) -> Iterator[Tensor]:
    """The parts in the host's pageable memory.

    `arrival` gives an event that passes when everything is done that the device of a part has been
    given so far.
    """
    waiting: tuple[Tensor, Any] | None = None
    for part in parts:
        # torch takes pinned memory for a copy to the host that is not waited for.
        here, waiting = waiting, (part.to("cpu", non_blocking=True), arrival(part))
        if here is not None:
            yield _landed(*here)
    if waiting is not None:
        yield _landed(*waiting)


def arrival(part: Tensor) -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(part.device))
    return event


def _landed(part: Tensor, arrived: Any) -> Tensor:
    arrived.synchronize()
    return part.clone()
