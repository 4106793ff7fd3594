"""The codec's stages, executed by ONNX Runtime on the CPU, against the codec itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.bundle.codec import bundle_codec
from dtg_restore.engine.codecs.base import CodecFacts
from dtg_restore.engine.codecs.convolution import MakeConvolution, Traced, fastest
from dtg_restore.engine.codecs.pixels import PixelCodec
from dtg_restore.engine.codecs.tiny import TinyCodec, TinyVae
from dtg_restore.engine.codecs.wan import WanCodec
from dtg_restore.engine.codecs.wan_config import WanVaeConfig
from dtg_restore.engine.codecs.wan_net import WanVae
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.runtimes.base import Component, Engine
from dtg_restore.engine.runtimes.engines import open_engine
from dtg_restore.export.codec import codec_model, codec_stages, open_codec
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.operators import unsupported
from dtg_restore.export.stage import Stage

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the largest value
TILE = (48, 32)  # width, height
LATENTS_22 = ((0.1,) * 8, (0.7,) * 8)  # mean and deviation
WAN = {
    "2.1": WanVaeConfig(4, 4, 16, (1, 1, 2), 1, (False, True)),
    "2.2": WanVaeConfig(8, 8, 8, (1, 1), 1, (True,), True, 2, (0.1,) * 8, (0.7,) * 8),
}
# An export takes seconds: the encoder of 2.1, of the layers that 2.2 has, is executed by torch.
COMPILED = {"2.1": ["decode"], "2.2": ["encode", "decode"], "tiny": ["encode", "decode"]}
EACH = [(kind, way) for kind in COMPILED for way in COMPILED[kind]]


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


class Module:
    """A stage that torch executes."""

    device = CPU

    def __init__(self, stage: Stage):
        self._stage = stage
        self.inputs = self.outputs = {}

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._stage.module(*(inputs[name] for name in self._stage.inputs))
        return dict(zip(self._stage.outputs, outputs, strict=True))


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
                made[kind].stages[stage.name] = stage
                if not stage.name.startswith(tuple(COMPILED[kind])):
                    made[kind].engines[stage.name] = Module(stage)
                    continue
                artefact = to_onnx(stage, folder)
                engine = open_engine("ort", folder, Component(*artefact), CPU)
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


@pytest.mark.parametrize("kind, way", EACH)
def test_slices_in_their_order(kind: str, way: str, compiled: Callable[[str], Compiled]) -> None:
    """Results and caches of three slices, the graphs and the modules each with their own."""
    parts = compiled(kind)
    torch.manual_seed(1)
    past: dict[str, Tensor] = {}
    caches: tuple[Tensor, ...] = ()
    for place in ("first", "next", "next"):
        name = f"{way}_{place}.32x48"
        stage = parts.stages[name]
        x_name, example = next(iter(stage.inputs.items()))
        x = torch.rand_like(example)
        got = parts.engines[name]({x_name: x, **past})
        before = caches
        with torch.inference_mode():
            y, *caches = stage.module(x, *before)
        assert tuple(got) == stage.outputs
        for mine, want in zip(got.values(), (y, *caches), strict=True):
            assert error(mine, want) <= TOLERANCE
        past = past_of(got)
    assert len(caches) == codec_model(parts.exported, TILE)["caches"][way]
    with torch.inference_mode():  # without what they remember, slices would be others
        forgotten, *_ = stage.module(x, *map(torch.zeros_like, before))
    assert error(forgotten, y) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", COMPILED)
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


@pytest.mark.parametrize("kind", COMPILED)
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


def test_inputs_are_not_written_to() -> None:
    for stage in codec_stages(wan_codec("2.2", Traced), [TILE]):
        given = [torch.randn_like(x) for x in stage.inputs.values()]
        kept = [x.clone() for x in given]
        stage.module(*given)
        assert all(map(torch.equal, given, kept)), stage.name


def test_stages_and_their_tensors() -> None:
    made = {s.name: s for s in codec_stages(wan_codec("2.1", Traced), [TILE, (16, 16)])}
    assert list(made) == [
        f"{part}.{size}"
        for size in ("32x48", "16x16")
        for part in ("encode_first", "encode_next", "decode_first", "decode_next")
    ]
    first, later = made["encode_first.32x48"], made["encode_next.32x48"]
    assert first.inputs["pixels"].shape == (1, 3, 32, 48)
    assert later.inputs["pixels"].shape == (2, 3, 32, 48)
    assert first.outputs == later.outputs and first.outputs[0] == "z"
    z, *caches = first.module(*first.inputs.values())
    assert z.shape == (1, 16, 8, 12)
    assert [c.shape for c in caches] == [c.shape for c in list(later.inputs.values())[1:]]


def test_half_precision_is_inside() -> None:
    vae = WanVae(WAN["2.1"])
    randomise(vae)
    vae.to(torch.bfloat16).prepare(Traced)
    codec = WanCodec(vae, WAN["2.1"], CPU, torch.bfloat16, None)
    for stage in codec_stages(codec, [(16, 16)]):
        x, *past = stage.inputs.values()
        y, *caches = stage.module(x, *past)
        assert x.dtype == y.dtype == torch.float32
        assert {c.dtype for c in (*past, *caches)} == {torch.bfloat16}


def test_what_cannot_be_exported() -> None:
    assert not list(codec_stages(PixelCodec(CPU), [TILE]))
    assert codec_model(PixelCodec(CPU), TILE) == {"kind": "pixels"}
    with pytest.raises(ConfigError, match="48x21: sides must be multiples of 4"):
        next(codec_stages(wan_codec("2.1", Traced), [(48, 21)]))
    with pytest.raises(EngineError, match="not opened for export"):
        next(codec_stages(wan_codec("2.1", fastest), [TILE]))


def test_codecs_are_opened_for_export(tmp_path: Path) -> None:
    opened = open_codec(RestoreConfig(backbone="mini"), CPU, torch.float32)
    assert isinstance(opened.codec, PixelCodec) and opened.source is None
    write_model(tmp_path)
    for vae, kind in (("auto", WanCodec), ("tiny", TinyCodec)):
        config = RestoreConfig(backbone=str(tmp_path), vae=vae)
        opened = open_codec(config, CPU, torch.float32)
        assert isinstance(opened.codec, kind) and opened.source is not None
        assert opened.source.exists() and opened.source.is_relative_to(tmp_path)
        assert len(list(codec_stages(opened.codec, [(16, 16)]))) == 4


def write_model(folder: Path) -> None:
    """A Wan with both codecs; of its transformer only the sizes are read."""
    config = WanConfig(16, 1, 1, 8, 16, 4, 8, (1, 2, 2))
    state = WanDiT(config).state_dict()
    state["patch_embedding.weight"] = torch.zeros(16, 16, 1, 2, 2)
    (folder / "transformer").mkdir()
    save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    settings = {"num_attention_heads": 1}
    (folder / "transformer" / "config.json").write_text(json.dumps(settings))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    vae = WAN["2.1"]
    settings = {
        **{"_class_name": "AutoencoderKLWan", "base_dim": 4, "z_dim": 16, "num_res_blocks": 1},
        **{"dim_mult": vae.multipliers, "temperal_downsample": vae.halves_time},
    }
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(settings))
    save_file(WanVae(vae).state_dict(), folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(TinyVae(16, 1).state_dict(), folder / "taew2_1.safetensors")
