"""The codec's networks as stages: a slice of a clip and what layers remember, in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..engine.backbones import locate
from ..engine.bundle.facts import to_json
from ..engine.codecs.base import Codec, Memory
from ..engine.codecs.choice import find_wan_codec, open_wan_codec
from ..engine.codecs.convolution import Traced
from ..engine.codecs.pixels import PixelCodec
from ..engine.codecs.tiny import TinyCodec
from ..engine.codecs.wan import WanCodec
from ..engine.config import RestoreConfig
from ..engine.errors import ConfigError, EngineError
from .stage import Stage

Run = Callable[[Tensor, Memory], Tensor]
WAYS = ("encode", "decode")
NAMES = {"encode": ("pixels", "z"), "decode": ("z", "pixels")}  # of what goes in and comes out


class OpenedCodec(NamedTuple):
    """A codec whose network can be traced, and the file or folder that it was read from."""

    codec: Codec
    source: Path | None


def open_codec(config: RestoreConfig, device: torch.device, dtype: torch.dtype) -> OpenedCodec:
    """The codec of the backbone that `config` names, in the form that `codec_stages` takes.

    Errors as those of `load_codec`; EngineError where the family's codec cannot be exported.
    """
    found = locate(config.backbone)
    if found.family == "mini":
        return OpenedCodec(PixelCodec(device), None)
    if found.family != "wan":
        raise EngineError(f"the codec of {found.family} models cannot be exported")
    source = find_wan_codec(found.path, config.vae)
    facts = found.load().facts(found.path).codec
    return OpenedCodec(open_wan_codec(source, facts, device, dtype, convolution=Traced), source)


class SliceGraph(nn.Module):
    """One slice through an encoder or a decoder: x and caches to the result and caches.

    `layers` are those that remember something, in the order of the caches; none where x is the
    first slice of a clip.
    """

    def __init__(self, network: nn.Module, run: Run, layers: tuple[Any, ...]):
        super().__init__()
        self.network, self._run, self._layers = network, run, layers
        self._dtype = next(network.parameters()).dtype

    def forward(self, x: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        # Copies, as layers write to what they remember where they are not traced.
        copies = (cache.clone() for cache in caches)
        memory: Memory = dict(zip(self._layers, copies, strict=True))
        y = self._run(x.to(self._dtype), memory).float()
        return y, *memory.values()


def codec_stages(codec: Codec, tiles: Sequence[tuple[int, int]]) -> Iterator[Stage]:
    """The four stages of each tile of (width, height) pixels; none for a codec without a network.

    Parameters
    ----------
    codec : as `open_codec` gives it; its arithmetic keeps the type it has.

    Raises
    ------
    ConfigError : a tile is not made of whole latent cells.
    EngineError : the codec has no export, or was not loaded for one.
    """
    if isinstance(codec, PixelCodec):
        return
    network, cell = _network(codec), codec.facts.pixels
    for width, height in tiles:
        if min(width, height) < cell or width % cell or height % cell:
            raise ConfigError(
                f"the codec's tile is {width}x{height}: sides must be multiples of {cell}"
            )
        for way in WAYS:
            yield from _stages(codec, network, way, height, width)


def _stages(codec: Codec, network: nn.Module, way: str, height: int, width: int) -> Iterator[Stage]:
    run, (x_name, y_name) = getattr(network, way), NAMES[way]
    first, later = _examples(codec, way, height, width)
    memory = _remembered(network, run, first)
    # A graph has one name for one tensor: what a slice leaves is not what it was given.
    past = {f"past_{i}": cache.contiguous() for i, cache in enumerate(memory.values())}
    outputs = (y_name, *(f"cache_{i}" for i in range(len(past))))
    size = f"{height}x{width}"
    graph = SliceGraph(network, run, ()).eval()
    yield Stage(f"{way}_first.{size}", graph, {x_name: first}, outputs)
    graph = SliceGraph(network, run, tuple(memory)).eval()
    yield Stage(f"{way}_next.{size}", graph, {x_name: later} | past, outputs)


def codec_model(codec: Codec, tile: tuple[int, int]) -> dict[str, Any]:
    """The codec's part of a manifest, of which `bundle_codec` makes it again; `tile` is
    (width, height) in pixels."""
    if isinstance(codec, PixelCodec):
        return {"kind": "pixels"}
    network, cell = _network(codec), codec.facts.pixels
    counts = {}
    for way in WAYS:
        smallest, _ = _examples(codec, way, cell, cell)
        counts[way] = len(_remembered(network, getattr(network, way), smallest))
    return {
        "kind": "wan" if isinstance(codec, WanCodec) else "tiny",
        "config": to_json(codec.config) if isinstance(codec, WanCodec) else None,
        "facts": to_json(codec.facts),
        "tile": list(tile),
        "caches": counts,
    }


def _network(codec: Codec) -> nn.Module:
    """EngineError where it cannot be traced."""
    if not isinstance(codec, WanCodec | TinyCodec) or not isinstance(codec.vae, nn.Module):
        raise EngineError(f"the codec {codec.facts.name} has no export")
    network = codec.vae
    if isinstance(codec, WanCodec) and not any(isinstance(m, Traced) for m in network.modules()):
        raise EngineError("the codec was not opened for export: its weights are not as on disk")
    return network


def _examples(codec: Codec, way: str, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The first slice of a clip and a later one."""
    facts, device = codec.facts, codec.device
    if way == "decode":
        size = (height // facts.pixels, width // facts.pixels)
        z = torch.zeros(1, facts.channels, *size, device=device)
        return z, z
    group = torch.zeros(facts.frames, 3, height, width, device=device)
    return (group[:1] if isinstance(codec, WanCodec) else group), group


@torch.no_grad()
def _remembered(network: nn.Module, run: Run, first: Tensor) -> Memory:
    memory: Memory = {}
    run(first.to(next(network.parameters()).dtype), memory)
    return memory
