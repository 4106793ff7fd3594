"""What a run holds in memory, from facts alone, and what would make it fit."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from .backbones.base import BackboneFacts
from .config import DTG, RestoreConfig
from .schedule import flow_times

FRAME_BUFFERS = 8  # x, its successor, noise, two velocities, input, output, one spare
# A convolution of the codec in fp32 on a CPU keeps its weights in two transformed forms: of 36
# values instead of 9 all three taps, and the last one alone.
CODEC_WEIGHTS_ON_CPU = 36 / 9 * 4 / 3
# In the order of what they cost; weights of one byte change the result a little.
REMEDIES: tuple[dict[str, Any], ...] = (
    {},
    {"offload": "model"},
    {"offload": "block"},
    {"weights": "fp8"},
    {"offload": "model", "weights": "fp8"},
    {"offload": "block", "weights": "fp8"},
)


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they hold; `waiting` are weights on the host while the device needs them not.

    `on_cpu` tells that device and host are one.
    """

    weights: int
    constants: int
    state: int
    activations: int
    codec: int
    codec_weights: int
    waiting: int
    on_cpu: bool

    @property
    def device(self) -> int:
        """The peak on the device: refinement and codec take turns."""
        leaves = self.waiting == self.weights  # the whole model makes room for the codec
        refining = self.weights + self.activations
        coding = (0 if leaves else self.weights) + self.codec
        held = self.constants + self.state + self.codec_weights
        return held + max(refining, coding) + (self.waiting if self.on_cpu else 0)

    def describe(self) -> dict[str, Any]:
        return asdict(self) | {"device": self.device}


@dataclass(frozen=True)
class Work:
    """The sizes that memory follows: of a chunk in pixels, of a batch of tiles, of the codec's
    tile."""

    frames: int
    height: int
    width: int
    tokens: int
    codec_pixels: int


def memory_of(
    facts: BackboneFacts,
    config: RestoreConfig,
    work: Work,
    device: torch.device,
    dtype: torch.dtype,
) -> Memory:
    """The memory of stage one with the settings of `config`."""
    size, on_cpu = dtype.itemsize, device.type == "cpu"
    dtg = config.dtg(facts.defaults)
    needed = sum(t_from <= dtg.t_start for t_from in facts.experts)
    parameters = facts.parameters * needed // len(facts.experts)
    layer = facts.width * (8 * facts.width + 2 * facts.ffn_width)
    in_blocks = min(parameters, needed * facts.depth * layer)
    rest = (parameters - in_blocks) * size
    blocks = in_blocks * (size if config.weights == "auto" else 1)
    resident = rest + (2 * blocks // facts.depth if config.offload == "block" else blocks)
    codec = facts.codec
    codec_size = size * (CODEC_WEIGHTS_ON_CPU if on_cpu and dtype == torch.float32 else 1)
    cells = work.frames * work.height * work.width // (codec.frames * codec.pixels**2)
    return Memory(
        weights=resident,
        constants=_constants(facts, dtg, size),
        state=4 * (FRAME_BUFFERS - 2 + _kept(facts, config)) * cells * codec.channels
        + (4 * 2 * 3 * work.frames * work.height * work.width if on_cpu else 0),
        activations=int(work.tokens * facts.width * facts.live_channels * size),
        codec=int(work.codec_pixels * codec.live_values * size),
        codec_weights=int(codec.parameters * codec_size),
        waiting={"none": 0, "block": blocks, "model": rest + blocks}[config.offload],
        on_cpu=on_cpu,
    )


def _kept(facts: BackboneFacts, config: RestoreConfig) -> int:
    """Velocities that reuse and caching keep of earlier nodes."""
    keeps_gap = config.reuse_tol > 0 or config.cache_tol > 0
    return keeps_gap + (facts.cycle if config.cache_tol > 0 else 0)


def _constants(facts: BackboneFacts, dtg: DTG, size: int) -> int:
    """Modulation of every node, and keys and values of the text, of both branches."""
    nodes = len(flow_times(dtg.steps, dtg.t_start, dtg.shift))
    keys_values = 2 * 2 * facts.context_tokens * facts.width * facts.depth * size
    return keys_values + 2 * nodes * facts.depth * 6 * facts.width * 4


def remedy(
    facts: BackboneFacts,
    config: RestoreConfig,
    work: Work,
    device: torch.device,
    dtype: torch.dtype,
    budget: int,
) -> dict[str, Any] | None:
    """The first of `REMEDIES` with which stage one fits into `budget` bytes; {} where it does as it
    is, None where none helps."""
    for settings in REMEDIES if facts.can_wait else REMEDIES[:1]:
        changed = replace(config, **settings)
        if memory_of(facts, changed, work, device, dtype).device <= budget:
            return settings
    return None


def memory_size(device: torch.device) -> int | None:
    """Bytes of the device, or of the host for a CPU; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
