"""The codec's stages, executed by ONNX Runtime on the CPU, against the codec itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.bundle.codec import bundle_codec
from dtg_restore.engine.bundle.manifest import Component
from dtg_restore.engine.codecs.base import CodecFacts
from dtg_restore.engine.codecs.convolution import MakeConvolution, Traced, fastest
from dtg_restore.engine.codecs.tiny import TinyCodec, TinyVae
from dtg_restore.engine.codecs.wan import WanCodec
from dtg_restore.engine.codecs.wan_config import WanVaeConfig
from dtg_restore.engine.codecs.wan_net import WanVae
from dtg_restore.engine.runtimes.base import Engine
from dtg_restore.engine.runtimes.engines import open_engine
from dtg_restore.export.codec import codec_model, codec_stages
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.operators import unsupported
from dtg_restore.export.stage import Stage

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the largest value
TILE = (48, 32)  # width, height
LATENTS_22 = ((0.1,) * 8, (0.7,) * 8)  # mean and deviation
# Without and with shortcuts; levels that halve width and height alone, pixels folded into channels.
WAN = {
    "wan 2.1": WanVaeConfig(4, 6, 16, (1, 2), 1, (True,)),
    "wan 2.2": WanVaeConfig(8, 8, 8, (1, 2, 2), 1, (False, True), True, 2, *LATENTS_22),
}
KINDS = [*WAN, "tiny"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def randomise(network: nn.Module) -> None:
    """Every layer, and what it remembers, counts in the result."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and not name.endswith("gamma"):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.uniform_(parameter, 0.7, 1.3)
            parameter.data -= float(name.endswith("bias"))
    network.eval().requires_grad_(False)


def wan_codec(
    name: str, convolution: MakeConvolution, tile: tuple[int, int] | None = TILE
) -> WanCodec:
    vae = WanVae(WAN[name])
    randomise(vae)
    return WanCodec(vae.prepare(convolution), WAN[name], CPU, torch.float32, tile)


def tiny_codec() -> TinyCodec:
    vae = TinyVae(16, 1)
    randomise(vae)
    facts = CodecFacts("tiny", 16, 4, 8, causal=True)
    return TinyCodec(vae, facts, CPU, torch.float32)


class Compiled(NamedTuple):
    """A codec as it is exported, its twin in the engine's own form, and its stages."""

    exported: WanCodec | TinyCodec
    own: WanCodec | TinyCodec
    stages: dict[str, Stage]
    engines: dict[str, Engine]
    graphs: dict[str, Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Compiled]:
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    made: dict[str, Compiled] = {}

    def build(kind: str) -> Compiled:
        if kind not in made:
            torch.set_num_threads(1)
            folder = tmp_path_factory.mktemp("codec")
            if kind == "tiny":
                exported, own = tiny_codec(), tiny_codec()
            else:
                exported, own = wan_codec(kind, Traced), wan_codec(kind, fastest)
            made[kind] = Compiled(exported, own, {}, {}, {})
            for stage in codec_stages(exported, [TILE]):
                artefact = to_onnx(stage, folder)
                engine = open_engine("ort", folder, Component(*artefact), CPU)
                made[kind].stages[stage.name] = stage
                made[kind].engines[stage.name] = engine
                made[kind].graphs[stage.name] = folder / artefact.files[0]
        return made[kind]

    return build


def error(result: Tensor, expected: Tensor) -> float:
    assert result.shape == expected.shape and result.dtype == expected.dtype
    return ((result - expected).abs().max() / expected.abs().max().clamp(min=1e-9)).item()


def past_of(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    caches = {name: value for name, value in outputs.items() if name.startswith("cache_")}
    return {name.replace("cache", "past"): value for name, value in caches.items()}


@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize("kind", KINDS)
def test_slices_in_their_order(kind: str, way: str, compiled: Callable[[str], Compiled]) -> None:
    """Results and caches of three slices, the graphs and the modules each with their own."""
    parts = compiled(kind)
    torch.manual_seed(1)
    past: dict[str, Tensor] = {}
    caches: tuple[Tensor, ...] = ()
    seen = []
    for place in ("first", "next", "next"):
        name = f"{way}_{place}.32x48"
        stage = parts.stages[name]
        x_name, example = next(iter(stage.inputs.items()))
        x = torch.rand_like(example)
        got = parts.engines[name]({x_name: x, **past})
        with torch.inference_mode():
            y, *caches = stage.module(x, *caches)
        assert tuple(got) == stage.outputs
        for mine, want in zip(got.values(), (y, *caches), strict=True):
            assert error(mine, want) <= TOLERANCE
        past = past_of(got)
        seen.append(y)
    assert len(caches) == codec_model(parts.exported, TILE)["caches"][way]
    if place == "next":  # without what they remember, slices would be others
        with torch.inference_mode():
            forgotten, *_ = stage.module(x, *map(torch.zeros_like, caches))
        assert error(forgotten, seen[-1]) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_through_engines(kind: str, compiled: Callable[[str], Compiled]) -> None:
    """The codec of a bundle, out of its manifest, against the engine's own form; the Wan VAE with
    two tiles, each a stream with its own memory."""
    parts = compiled(kind)
    model = json.loads(json.dumps(codec_model(parts.exported, TILE)))
    codec = bundle_codec(model, parts.engines, CPU)
    assert codec.facts == parts.own.facts
    torch.manual_seed(2)
    frames, wide = (5, 48) if kind == "tiny" else (2 * parts.own.facts.frames + 1, 80)
    clip = torch.rand(frames, 3, 32, wide)
    z = parts.own.encode(clip)
    assert error(codec.encode(clip), z) <= TOLERANCE
    z = z + torch.randn_like(z) / 10
    for got, want in zip(codec.decode(z), parts.own.decode(z), strict=True):
        assert error(got, want) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_hold_what_other_runtimes_take(
    kind: str, compiled: Callable[[str], Compiled]
) -> None:
    onnx = pytest.importorskip("onnx")
    parts = compiled(kind)
    weights = sum(tensor.numel() for tensor in parts.exported.vae.state_dict().values())
    for name, path in parts.graphs.items():
        proto = onnx.load(path)
        assert not unsupported(proto)
        found = {node.op_type for node in proto.graph.node}
        assert not found & {"ScatterND", "ScatterElements", "Loop", "If"}, name
        stored = {i.name: torch.Size(i.dims).numel() for i in proto.graph.initializer}
        assert not set(stored) & {value.name for value in proto.graph.output}, name
        convolved = [n.input[1] for n in proto.graph.node if n.op_type == "Conv"]
        assert set(convolved) <= set(stored) and len(set(convolved)) == len(convolved), name
        assert sum(stored.values()) < weights, name  # those of one way, once
