"""Wan's stages, executed by ONNX Runtime on the CPU, against the backbone itself."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dtg_restore.engine.backbones import load_backbone
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.wan import WanBackbone
from dtg_restore.engine.backbones.wan_dit import WanDiT
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.bundle.facts import backbone_facts
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.runtimes.base import Component, Engine
from dtg_restore.engine.runtimes.engines import open_engine
from dtg_restore.engine.schedule import Node
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.operators import unsupported
from dtg_restore.export.wan import model, stages

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the largest value
CONFIG = WanConfig(32, 2, 2, 40, 16, 12, 16, (1, 2, 2))
TOKENS = 5
BUCKET = Bucket(5, 32, 48, (1, 2))  # 2 x 4 x 6 latents
NODES = [
    Node(0.93, 0.7, 1.5, 1.5, -0.5),
    Node(0.41, 0.25, 1.3, 1.3, -0.3),
    Node(0.0, 0.0, 1.0, 1.0, 0.0),
]
COMPILED = ("condition.0", "velocity.0.2x5x32x48", "condition.1", "velocity.1.1x5x32x48")
BRANCHES = ("cond", "uncond")
PROMPTS = ("prompt_embeds", "negative_prompt_embeds")
TABLES = ("modulation", "final", "keys", "values")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_transformer(folder: Path, seed: int) -> None:
    """Random weights on which every input has its effect."""
    torch.manual_seed(seed)
    state = {}
    for name, tensor in WanDiT(CONFIG).state_dict().items():
        state[name] = torch.randn(tensor.shape) * 0.15 + float("norm" in name and "weight" in name)
    patches = state["patch_embedding.weight"]
    state["patch_embedding.weight"] = patches.view(CONFIG.dim, CONFIG.channels, *CONFIG.patch)
    folder.mkdir(parents=True)
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": CONFIG.heads}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two experts, the second from t = 0.6 on, and its prompts."""
    folder = tmp_path_factory.mktemp("wan")
    write_transformer(folder / "transformer_2", 0)
    write_transformer(folder / "transformer", 1)
    index = {"_class_name": "WanPipeline", "boundary_ratio": 0.6}
    (folder / "model_index.json").write_text(json.dumps(index))
    save_file(
        {name: torch.randn(1, TOKENS, CONFIG.text_dim) for name in PROMPTS}, folder / "prompts.st"
    )
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> WanBackbone:
    config = RestoreConfig(backbone=str(folder), prompt_embeds=str(folder / "prompts.st"))
    backbone = load_backbone(config, CPU, dtype)
    assert isinstance(backbone, WanBackbone)
    return backbone


class Compiled(NamedTuple):
    backbone: WanBackbone
    engines: dict[str, Engine]
    graphs: dict[str, Path]
    text: Tensor

    def condition(self, expert: int) -> dict[str, Tensor]:
        """The tables of a run, the times of the first branch first."""
        times = torch.tensor([node.t for node in NODES] + [node.tau for node in NODES])
        return self.engines[f"condition.{expert}"]({"times": times, "text": self.text})

    def velocity(self, expert: int, x: Tensor, rows: list[int], branches: list[int]) -> Tensor:
        """A pass whose samples have rows of the tables' times and branches."""
        tables = self.condition(expert)
        given = {
            "x": x,
            "modulation": tables["modulation"][:, rows],
            "final": tables["final"][rows],
            "keys": tables["keys"][:, branches],
            "values": tables["values"][:, branches],
        }
        return self.engines[f"velocity.{expert}.{len(x)}x5x32x48"](given)["v"]


@pytest.fixture(scope="module")
def compiled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.set_num_threads(1)
    place, backbone = tmp_path_factory.mktemp("bundle"), load(folder)
    engines, graphs = {}, {}
    for stage in stages(backbone, [BUCKET], TOKENS):
        if stage.name in COMPILED:
            artefact = to_onnx(stage, place)
            engines[stage.name] = open_engine("ort", place, Component(*artefact), CPU)
            graphs[stage.name] = place / artefact.files[0]
    found = load_file(folder / "prompts.st")
    return Compiled(backbone, engines, graphs, torch.cat([found[name] for name in PROMPTS]))


def error(result: Tensor, expected: Tensor) -> float:
    assert result.shape == expected.shape and result.dtype == expected.dtype
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("expert", [0, 1])
def test_the_tables_are_those_of_the_network(expert: int, compiled: Compiled) -> None:
    """For other numbers of times than the graph was made with."""
    got = compiled.condition(expert)
    network = compiled.backbone.read_network(expert)
    with torch.inference_mode():
        times = torch.tensor([[n.t for n in NODES], [n.tau for n in NODES]])
        want = network.table(times, compiled.text)
    assert tuple(got) == TABLES
    assert error(got["modulation"].unflatten(1, (2, -1)), want.modulation) <= TOLERANCE
    assert error(got["final"].unflatten(0, (2, -1)), want.final) <= TOLERANCE
    for layer, (key, value) in enumerate(want.keys_values):
        assert error(got["keys"][layer], key) <= TOLERANCE
        assert error(got["values"][layer], value) <= TOLERANCE


def test_every_sample_has_times_and_text_of_its_own(compiled: Compiled) -> None:
    """Both branches in one call; the node's times belong to the first expert."""
    x, index = torch.randn(2, 16, 2, 4, 6), 1
    rows = [index, len(NODES) + index]
    condition = compiled.backbone.prepare("", "", NODES).at(index, BRANCHES, 1)
    want = compiled.backbone.velocity(x, torch.tensor([NODES[1].t, NODES[1].tau]), condition)
    assert error(compiled.velocity(0, x, rows, [0, 1]), want) <= TOLERANCE
    assert error(compiled.velocity(0, x, rows[::-1], [0, 1]), want) > 100 * TOLERANCE
    assert error(compiled.velocity(0, x, rows, [1, 0]), want) > 100 * TOLERANCE


@pytest.mark.parametrize("branch", [0, 1])
def test_one_branch_alone(branch: int, compiled: Compiled) -> None:
    """At a node whose times belong to the second expert."""
    x = torch.randn(1, 16, 2, 4, 6)
    condition = compiled.backbone.prepare("", "", NODES).at(0, BRANCHES[branch : branch + 1], 1)
    t = torch.tensor([(NODES[0].t, NODES[0].tau)[branch]])
    want = compiled.backbone.velocity(x, t, condition)
    assert error(compiled.velocity(1, x, [branch * len(NODES)], [branch]), want) <= TOLERANCE


def test_graphs_hold_what_other_runtimes_take(compiled: Compiled) -> None:
    onnx = pytest.importorskip("onnx")
    for name, path in compiled.graphs.items():
        proto = onnx.load(path)
        assert not unsupported(proto)
        found = {node.op_type for node in proto.graph.node}
        assert not found & {"ScatterND", "ScatterElements", "Loop", "If"}, name
        if name.startswith("velocity"):  # the rotary tables are constants
            assert not found & {"Sin", "Cos", "Range", "Cast"}, name
    times = compiled.engines["condition.0"].inputs["times"]
    assert isinstance(times.shape[0], str) and times.dtype == "float32"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_of_a_network_in_half_precision(dtype: torch.dtype, folder: Path) -> None:
    condition, velocity = list(stages(load(folder, dtype), [BUCKET], TOKENS))[:2]
    tables = condition.module(*condition.inputs.values())
    assert [t.dtype for t in tables] == [torch.float32, torch.float32, dtype, dtype]
    assert all(
        velocity.inputs[name].dtype == t.dtype for name, t in zip(TABLES, tables, strict=True)
    )
    for name, table in zip(TABLES, tables, strict=True):
        assert velocity.inputs[name].dtype == table.dtype
    assert velocity.inputs["x"].dtype == torch.float32
    assert velocity.module(*velocity.inputs.values()).dtype == torch.float32


def test_an_expert_is_held_only_as_long_as_its_stages(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[nn.Module]] = []
    whole = WanBackbone.read_network

    def spy(self: WanBackbone, expert: int) -> WanDiT:
        network = whole(self, expert)
        read.append(weakref.ref(network))
        return network

    monkeypatch.setattr(WanBackbone, "read_network", spy)
    made = stages(load(folder), [BUCKET], TOKENS)
    assert not read
    names = []
    for expert in range(2):
        names += [next(made).name for _ in range(3)]
        assert len(read) == expert + 1
    assert names == [
        *("condition.0", "velocity.0.1x5x32x48", "velocity.0.2x5x32x48"),
        *("condition.1", "velocity.1.1x5x32x48", "velocity.1.2x5x32x48"),
    ]
    assert read[0]() is None and read[1]() is not None


@pytest.mark.parametrize(
    "bucket", [Bucket(4, 32, 48, (1,)), Bucket(5, 24, 48, (1,)), Bucket(5, 32, 48, (0,))]
)
def test_buckets_that_do_not_fit(bucket: Bucket, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"4 k \+ 1 frames with sides that are multiples of 16"):
        next(stages(load(folder), [bucket], TOKENS))


def test_the_manifest_describes_the_model(folder: Path) -> None:
    backbone = load(folder)
    found = json.loads(json.dumps(model(backbone, TOKENS)))
    facts = found.pop("facts")
    assert backbone_facts(facts) == backbone.facts
    assert found == {
        **{"family": "wan", "phases": [[0, 0, 0]], "tags": None, "text_tokens": TOKENS},
    }
