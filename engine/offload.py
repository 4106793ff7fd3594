"""Weights that wait in the host's memory: block by block, or a whole network.

Weights never change in a run, so that bringing them back means dropping the device's copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ALIGNMENT = 256  # bytes; what a GPU's vector loads and copies like best


class BlockOffload:
    """The blocks of a network in order, each with its weights on `device` while it is the one.

    Iterating gives the blocks as the `nn.ModuleList` itself does, so that the network's loop is
    the same with and without.  Two buffers take the weights in turn: while block i computes,
    block i + 1 is copied on a stream of its own, and after the last block the first one again.
    Between passes every tensor of the blocks is its copy in the host's memory, pinned for a GPU.

    Parameters
    ----------
    blocks : on the host.  Their tensors are packed one block after another: no more than one block
        is held twice.  Not to be moved, cast or changed afterwards.
    device : where they compute; on the CPU the copies are made, but nothing overlaps.

    One pass at a time; a pass that was broken off does not harm the next.
    """

    @torch.inference_mode(False)  # the buffers outlive the mode that they are made in
    def __init__(self, blocks: nn.ModuleList, device: torch.device):
        self._blocks = blocks
        self._tensors = [module_tensors(block) for block in blocks]
        self._packed = [_pack(tensors, device.type == "cuda") for tensors in self._tensors]
        self._on_host = [[tensor.data for tensor in tensors] for tensors in self._tensors]
        size = max(packed.numel() for packed in self._packed)
        copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._slots = _Slot(size, device, copies), _Slot(size, device, copies)

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[nn.Module]:
        for index, block in enumerate(self._blocks):
            here, ahead = self._slots
            here.load(index, self._packed[index])  # there already, but for the very first
            following = (index + 1) % len(self)
            ahead.load(following, self._packed[following])
            here.wait()
            self._bind(index, _views(here.buffer, self._on_host[index]))
            yield block
            here.release()
            self._bind(index, self._on_host[index])
            self._slots = ahead, here

    @property
    def device_bytes(self) -> int:
        """What the two buffers take."""
        return sum(slot.buffer.numel() for slot in self._slots)

    def _bind(self, index: int, values: list[Tensor]) -> None:
        for tensor, value in zip(self._tensors[index], values, strict=True):
            tensor.data = value


class ModelOffload:
    """A network whose weights are on `device` only within `on_device()`, else pinned on the host.

    The network is not to be moved, cast or changed afterwards.
    """

    def __init__(self, network: nn.Module, device: torch.device):
        self._device, self._inside = device, False
        self._tensors = module_tensors(network)
        for tensor in self._tensors:
            host = tensor.data.cpu()
            tensor.data = host.pin_memory() if device.type == "cuda" else host
        self._on_host = [tensor.data for tensor in self._tensors]

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Within another one it does nothing."""
        if self._inside:
            yield
            return
        self._inside = True
        try:
            with torch.inference_mode(False):  # the network is used outside that mode as well
                for tensor, host in zip(self._tensors, self._on_host, strict=True):
                    tensor.data = host.to(self._device, non_blocking=True, copy=True)
            yield
        finally:
            for tensor, host in zip(self._tensors, self._on_host, strict=True):
                tensor.data = host
            self._inside = False


class _Slot:
    """Memory on the device for one block, and who may touch it when.

    With a stream for copies, a copy waits for the last use of the buffer, and the use for the copy.
    """

    def __init__(self, size: int, device: torch.device, copies: torch.cuda.Stream | None):
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self._device, self._copies = device, copies
        self._holds: int | None = None
        if copies is not None:
            self._copied, self._free = torch.cuda.Event(), torch.cuda.Event()
            self.buffer.record_stream(copies)  # not to be given to others while a copy runs
            self.release()  # whoever had the memory before has done so on the current stream

    def load(self, index: int, packed: Tensor) -> None:
        """Begin to copy block `index`, unless it is there."""
        if self._holds == index:
            return
        self._holds = index
        target = self.buffer[: packed.numel()]
        if self._copies is None:
            target.copy_(packed)
            return
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._free)
            target.copy_(packed, non_blocking=True)
            self._copied.record(self._copies)

    def wait(self) -> None:
        """Let what is launched from now on see the copy."""
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)

    def release(self) -> None:
        """Let the next copy follow on what has been launched until now."""
        if self._copies is not None:
            self._free.record(torch.cuda.current_stream(self._device))


def module_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def module_bytes(module: nn.Module) -> int:
    """What the tensors of a module take; it may be on the meta device."""
    return sum(tensor.nbytes for tensor in module_tensors(module))


def _pack(tensors: list[Tensor], pinned: bool) -> Tensor:
    """The tensors one after another in bytes on the host: one copy moves them all."""
    size = _places(tensors)[-1]
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    for tensor, place in zip(tensors, _views(packed, tensors), strict=True):
        place.copy_(tensor.data)
        tensor.data = place  # the original is freed before the next one is packed
    return packed


def _views(packed: Tensor, like: list[Tensor]) -> list[Tensor]:
    """The tensors that `_pack` laid into bytes, with the shapes and dtypes of `like`."""
    return [
        packed[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, start in zip(like, _places(like), strict=False)
    ]


def _places(tensors: list[Tensor]) -> list[int]:
    """Where each begins, and the size of all."""
    places = [0]
    for tensor in tensors:
        places.append(places[-1] + -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT)
    return places
