"""The codec of a bundle around engines that torch executes: names, streams, descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.bundle.codec import bundle_codec
from dtg_restore.engine.bundle.vae import EngineVae
from dtg_restore.engine.codecs.base import CodecFacts
from dtg_restore.engine.codecs.pixels import PixelCodec
from dtg_restore.engine.codecs.tiny import TinyCodec
from dtg_restore.engine.codecs.wan import WanCodec
from dtg_restore.engine.codecs.wan_config import WanVaeConfig
from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.runtimes.base import TensorSpec

CPU = torch.device("cpu")
SIZE = (16, 24)  # height, width of a tile in pixels
CONFIG = WanVaeConfig(mean=(0.5,) * 16, std=(2.0,) * 16)
WAN = {"kind": "wan", "config": asdict(CONFIG), "tile": [24, 16]}
FACTS = CodecFacts("tiny", 16, 4, 8, causal=True)
TINY = {"kind": "tiny", "config": None, "facts": asdict(FACTS), "tile": [24, 16]}


class Sums:
    """An engine that adds up what its stream has seen, in two caches; it checks what it gets."""

    device = CPU

    def __init__(self, way: str, first: bool, frames: int):
        self._way, self._first, self._frames = way, first, frames
        self.inputs: dict[str, TensorSpec] = {}
        self.outputs: dict[str, TensorSpec] = {}

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        past = {"past_0", "past_1"} if not self._first else set()
        assert set(inputs) == {"pixels" if self._way == "encode" else "z"} | past
        if self._way == "encode":
            seen, name = self._shrunk(inputs["pixels"]), "z"
        else:
            seen, name = self._grown(inputs["z"]), "pixels"
        total = seen[-1:] if self._first else inputs["past_0"] + seen[-1:]
        count = torch.ones(1) if self._first else inputs["past_1"] + 1
        return {name: seen + total / 10, "cache_0": total, "cache_1": count}

    def _shrunk(self, pixels: Tensor) -> Tensor:
        assert pixels.shape == (self._frames, 3, *SIZE) and pixels.dtype == torch.float32
        return F.avg_pool2d(pixels.mean((0, 1))[None, None], 8).repeat(1, 16, 1, 1)

    def _grown(self, z: Tensor) -> Tensor:
        assert z.shape == (1, 16, SIZE[0] // 8, SIZE[1] // 8) and z.dtype == torch.float32
        return F.interpolate(z[:, :3], scale_factor=8).repeat(self._frames, 1, 1, 1)


def engines(first: int) -> dict[str, Sums]:
    """Those of a tile; `first` frames are in a clip's first slice, 4 in any other."""
    return {
        f"{way}_{place}.16x24": Sums(way, place == "first", frames)
        for way in ("encode", "decode")
        for place, frames in (("first", first), ("next", 4))
    }


def test_a_stream_ends_with_its_memory() -> None:
    vae = EngineVae(engines(1), SIZE)
    z = torch.rand(3, 1, 16, 2, 3)
    one: dict[Any, Tensor] = {}
    other: dict[Any, Tensor] = {}
    alone = [vae.decode(x, one) for x in z]
    again: dict[Any, Tensor] = {}
    mixed = []
    for x in z:
        mixed.append(vae.decode(x, again))
        vae.decode(-x, other)
    assert all(map(torch.equal, alone, mixed))
    assert [len(pixels) for pixels in alone] == [1, 4, 4]
    assert torch.equal(one["past_1"], torch.full((1,), 3.0))
    assert not torch.equal(alone[1], vae.decode(z[1], {}).expand(4, -1, -1, -1))


def test_wan_is_normalised_and_tiled_as_ever() -> None:
    """Two tiles side by side: left of what they share stands the left one alone, and so on."""
    model = json.loads(json.dumps(WAN))
    codec = bundle_codec(model, engines(1), CPU)
    assert isinstance(codec, WanCodec) and codec.config == CONFIG and codec.facts == CONFIG.facts
    clip = torch.rand(9, 3, 16, 40)
    z = codec.encode(clip)
    assert z.shape == (1, 16, 3, 2, 5)
    vae, memory = EngineVae(engines(1), SIZE), {}
    for index, (start, stop) in enumerate(((0, 1), (1, 5), (5, 9))):
        e = vae.encode(clip[start:stop, :, :, :24] * 2 - 1, memory)
        torch.testing.assert_close(z[0, :, index, :, :2], ((e - 0.5) / 2)[0, :, :, :2])
    slices = list(codec.decode(z))
    assert [part.shape for part in slices] == [(n, 3, 16, 40) for n in (1, 4, 4)]
    memory = {}
    for index, part in enumerate(slices):
        pixels = vae.decode(z[:, :, index, :, 2:] * 2 + 0.5, memory)
        torch.testing.assert_close(part[..., 24:], ((pixels + 1) / 2).clamp(0, 1)[..., 8:])


def test_tiny_continues_the_clip_and_drops_frames_as_ever() -> None:
    codec = bundle_codec(json.loads(json.dumps(TINY)), engines(4), CPU)
    assert isinstance(codec, TinyCodec) and codec.facts == FACTS
    z = codec.encode(torch.rand(5, 3, *SIZE))
    assert z.shape == (1, 16, 2, 2, 3)
    assert [len(part) for part in codec.decode(z)] == [1, 4]


def test_pixels_need_no_engine() -> None:
    assert isinstance(bundle_codec({"kind": "pixels"}, {}, CPU), PixelCodec)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"kind": "wan"},
        WAN | {"tile": [16]},
        WAN | {"config": {"width": 3}},
        WAN | {"config": asdict(CONFIG) | {"mean": [0.0]}},
        TINY | {"facts": {}},
        {"kind": "other", "tile": [8, 8]},
    ],
)
def test_damaged_descriptions(model: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="(?i)codec"):
        bundle_codec(model, {}, CPU)
