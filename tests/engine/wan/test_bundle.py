"""Wan as a bundle: two experts, text, codec.  The stages themselves stand in for engines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dtg_restore.engine.backbones import load_backbone
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.bundle import opened
from dtg_restore.engine.bundle.facts import to_json
from dtg_restore.engine.bundle.hashes import file_facts, source_sha256
from dtg_restore.engine.bundle.manifest import Manifest, write_manifest
from dtg_restore.engine.config import DTG, RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.base import Component, TensorSpec
from dtg_restore.engine.schedule import nodes
from dtg_restore.export.codec import codec_model, codec_stages, open_codec
from dtg_restore.export.stage import Stage
from dtg_restore.export.stages import backbone_model, backbone_stages

CPU = torch.device("cpu")
TOKENS = 6
BUCKETS = (Bucket(5, 32, 48, (1, 2)),)
TILE = (32, 32)  # of the codec
SMALL: dict[str, Any] = {"sr": "none", "device": "cpu", "steps": 4, "t_start": 0.6}
Clip = Callable[..., Tensor]


class StageEngine:
    """A stage as an engine: of its own shapes and types alone."""

    def __init__(self, stage: Stage):
        self.device, self._stage = CPU, stage
        self.inputs = {name: spec(tensor) for name, tensor in stage.inputs.items()}
        self.outputs = {name: spec(y) for name, y in self._run(stage.inputs).items()}
        for name, axes in stage.open_axes.items():
            shape: list[int | str] = list(self.inputs[name].shape)
            for axis, free in axes.items():
                shape[axis] = free.name
            self.inputs[name] = TensorSpec(tuple(shape), self.inputs[name].dtype)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert inputs.keys() == self.inputs.keys()
        for name, wanted in self.inputs.items():
            found = spec(inputs[name])
            sizes = zip(wanted.shape, found.shape, strict=True)
            assert all(isinstance(a, str) or a == b for a, b in sizes), (name, wanted, found)
            assert found.dtype == wanted.dtype
        return self._run(inputs)

    @torch.no_grad()
    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = self._stage.module(*(inputs[name] for name in self._stage.inputs))
        made = (made,) if isinstance(made, Tensor) else made
        return {n: y.clone() for n, y in zip(self._stage.outputs, made, strict=True)}


def spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


@pytest.fixture(scope="module")
def experts(model: Path, tmp_path_factory: pytest.TempPathFactory, write_transformer: Any) -> Path:
    """Two transformers, each for one half of the times of a run."""
    folder = tmp_path_factory.mktemp("experts")
    write_transformer(folder / "transformer", seed=3)
    write_transformer(folder / "transformer_2", seed=4)
    (folder / "vae").symlink_to(model / "vae")
    index = {"_class_name": "WanPipeline", "boundary_ratio": 0.35}
    (folder / "model_index.json").write_text(json.dumps(index))
    save_file(load_file(model / "prompts.safetensors"), folder / "prompts.safetensors")
    return folder


@pytest.fixture(scope="module")
def made(experts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a bundle, and its engines by the names of files that stand for them."""
    folder = tmp_path_factory.mktemp("bundle")
    prompts = folder / "prompts.safetensors"
    config = RestoreConfig(
        backbone=str(experts), prompt_embeds=str(experts / prompts.name), device="cpu"
    )
    save_file(load_file(experts / prompts.name), prompts)
    backbone = load_backbone(config, CPU, torch.float32)
    codec = open_codec(config, CPU, torch.float32).codec
    stages = [*backbone_stages(backbone, BUCKETS, TOKENS), *codec_stages(codec, [TILE])]
    engines = {f"{stage.name}.onnx": StageEngine(stage) for stage in stages}
    for name in engines:
        (folder / name).write_text(name)
    facts = replace(backbone.facts, buckets=BUCKETS, prompt="good", negative_prompt="bad")
    manifest = Manifest(
        key="1" * 64,
        runtime="ort",
        device="cpu",
        precision="fp32",
        models={
            "backbone": backbone_model(backbone, TOKENS)
            | {
                "facts": to_json(facts),
                "prompts": prompts.name,
                "source": {"path": str(experts), "sha256": source_sha256(experts)},
            },
            "codec": codec_model(codec, TILE),
        },
        components={
            name.removesuffix(".onnx"): Component((name,), engine.inputs, engine.outputs)
            for name, engine in engines.items()
        },
        needs={},
        made_with={},
        files={f.name: file_facts(f) for f in folder.iterdir()},
    )
    write_manifest(folder, manifest)
    return folder, engines


@pytest.fixture
def bundle(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, engines = made
    monkeypatch.setattr(opened, "open_engine", lambda _, __, part, ___: engines[part.files[0]])
    return folder


def psnr(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return -10 * (a - b).double().square().mean().log10().item()


def load_eager(experts: Path, **settings: Any) -> Restorer:
    settings = {
        "backbone": str(experts),
        "prompt_embeds": str(experts / "prompts.safetensors"),
        "vae_tile": TILE,
    } | settings
    return Restorer.load(**(SMALL | settings))


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((5, 32, 48), {"branches": "batched"}),  # one part where both times are of one expert
        ((5, 40, 80), {"branches": "batched", "tile_batch": 2}),  # of 2 and 2, or 4 in two calls
        ((9, 32, 48), {"branches": "sequential", "overlap": 1}),
    ],
)
def test_restores_as_the_network_does(
    bundle: Path, experts: Path, clip: Clip, size: tuple[int, int, int], settings: dict[str, Any]
) -> None:
    frames = clip(*size)
    ours = Restorer.open(bundle, **(SMALL | settings))
    shape = {"chunk": 5, "tile": (48, 32), "tile_overlap": 16}
    expected = load_eager(experts, **(shape | settings)).restore(frames)
    assert psnr(ours.restore(frames), expected) > 100


def test_each_branch_has_its_own_expert(bundle: Path) -> None:
    backbone = Restorer.open(bundle, **SMALL).backbone
    assert backbone is not None
    context = backbone.prepare("good", "bad", nodes(DTG(t_start=0.6, steps=4, delta0=0.3)))
    seen = {
        tuple((part.expert, part.rows) for part in context.at(i, ("cond", "uncond"), 2))
        for i in range(4)
    }
    both, split = ((0, 0, 1, 1),), ((0, 0), (1, 1))
    assert {tuple(rows for _, rows in parts) for parts in seen} == {both, split}
    assert ((1, (0, 0)), (0, (1, 1))) in seen and ((0, (0, 0, 1, 1)),) in seen


def test_an_expert_without_times_is_not_opened(bundle: Path, clip: Clip) -> None:
    restorer = Restorer.open(bundle, **(SMALL | {"t_start": 0.3}))
    restorer.restore(clip(5, 32, 48))
    opened_names = restorer.backbone._bundle.engines._opened  # type: ignore[union-attr]
    assert {name.split(".")[1] for name in opened_names if name[0] in "cv"} == {"0"}


def test_other_shapes_are_evaluated_by_the_network(
    bundle: Path, experts: Path, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    frames, other = clip(9, 32, 32), {"chunk": 9, "tile": (32, 32), "branches": "sequential"}
    with caplog.at_level(logging.WARNING, "dtg_restore"):
        ours = Restorer.open(bundle, **(SMALL | other)).restore(frames)
    assert psnr(ours, load_eager(experts, **other).restore(frames)) > 100
    assert len(caplog.records) == 1


# -- prompts --------------------------------------------------------------------------------------


def test_another_prompt_needs_its_embeddings(bundle: Path, clip: Clip) -> None:
    frames = clip(5, 32, 48)
    with pytest.raises(ConfigError, match="'bad', not of 'worse'.*--prompt-embeds"):
        Restorer.open(bundle, **SMALL, negative_prompt="worse").restore(frames)


def write(path: Path, tokens: int) -> Path:
    embeds = torch.randn(1, tokens, 20, generator=torch.Generator().manual_seed(5))
    save_file({"prompt_embeds": embeds, "negative_prompt_embeds": -embeds}, path)
    return path


def test_prompts_by_file(bundle: Path, experts: Path, clip: Clip, tmp_path: Path) -> None:
    frames, file = clip(5, 32, 48), write(tmp_path / "full.safetensors", TOKENS)
    ours = Restorer.open(bundle, **SMALL, prompt_embeds=str(file), prompt="anything")
    theirs = load_eager(experts, chunk=5, tile=(48, 32), prompt_embeds=str(file))
    assert psnr(ours.restore(frames), theirs.restore(frames)) > 100


def test_fewer_tokens_are_filled_up_with_zeros(bundle: Path, clip: Clip, tmp_path: Path) -> None:
    frames, short = clip(5, 32, 48), write(tmp_path / "short.safetensors", TOKENS - 2)
    embeds = load_file(short)
    full = tmp_path / "full.safetensors"
    save_file({n: torch.cat([e, torch.zeros(1, 2, 20)], 1) for n, e in embeds.items()}, full)
    ours = [
        Restorer.open(bundle, **SMALL, prompt_embeds=str(file)).restore(frames)
        for file in (short, full)
    ]
    assert torch.equal(*ours)


def test_more_tokens_are_refused(bundle: Path, clip: Clip, tmp_path: Path) -> None:
    file = write(tmp_path / "long.safetensors", TOKENS + 1)
    with pytest.raises(ConfigError, match="have 7 tokens: the bundle takes up to 6"):
        Restorer.open(bundle, **SMALL, prompt_embeds=str(file)).restore(clip(5, 32, 48))
