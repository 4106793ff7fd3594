"""What a run is said to hold, against what published models weigh and what a pass really holds."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.bench.live_bytes import LiveBytes
from dtg_restore.bench.wan import SIZES, build, constants
from dtg_restore.engine.backbones import facts_of
from dtg_restore.engine.backbones.base import BackboneFacts
from dtg_restore.engine.backbones.wan import live_channels
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.memory import Work, memory_of, remedy
from dtg_restore.engine.plan import make_plan, what_fits

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "wan_memory.json"
GPU, CPU = torch.device("cuda"), torch.device("cpu")
GIB = 2**30


def write_headers(path: Path, config: WanConfig) -> Path:
    """A checkpoint of the real shapes that takes no room on the disk: its data are a hole."""
    with torch.device("meta"):
        network = build(config, torch.device("meta"), torch.bfloat16)
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    shapes["patch_embedding.weight"] = [config.dim, config.channels, *config.patch]
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BackboneFacts]:
    folder = tmp_path_factory.mktemp("published")
    return {
        name: facts_of(str(write_headers(folder / f"{name}.safetensors", SIZES[name])))
        for name in ("1.3B", "5B", "14B")
    }


def work(facts: BackboneFacts, frames: int = 81, height: int = 480, width: int = 832) -> Work:
    tokens = 2 * facts.tokens(frames, height, width)
    return Work(frames, height, width, tokens, height * width)


def memory(facts: BackboneFacts, **settings: Any):
    return memory_of(facts, RestoreConfig(**settings), work(facts), GPU, torch.bfloat16)


def test_published_sizes(published: dict[str, BackboneFacts]) -> None:
    parameters = {name: facts.parameters / 1e9 for name, facts in published.items()}
    assert parameters == pytest.approx({"1.3B": 1.419, "5B": 5.0, "14B": 14.29}, rel=2e-3)
    assert published["14B"].tokens(81, 480, 832) == 21 * 30 * 52
    assert published["5B"].tokens(81, 704, 1280) == 21 * 22 * 40


@pytest.mark.parametrize("name", ["1.3B", "5B", "14B"])
def test_parts_are_the_traced_ones(published: dict[str, BackboneFacts], name: str) -> None:
    """Weights, constants and bytes per token of the results file, of another way to count."""
    row = json.loads(RESULTS.read_text())["rows"][name]["bf16"]
    found = memory(published[name])
    assert found.weights == pytest.approx(row["weights_bytes"], rel=0.01)
    assert found.constants == pytest.approx(row["constants_bytes"], rel=0.02)
    tokens = work(published[name]).tokens
    assert found.activations / tokens == pytest.approx(row["bytes_per_token"], rel=0.02)


@pytest.mark.parametrize("ratio", [2, 6])
def test_a_pass_holds_what_the_facts_say(ratio: int) -> None:
    """On real tensors of this machine, with the scores of attention being torch's own affair."""
    config = WanConfig(96, 2, 2, 96 * ratio, 16, 32, 64, (1, 2, 2))
    network = build(config, CPU, torch.float32)
    with torch.inference_mode():
        table = constants(network, CPU, 2)
        x = torch.randn(2, 16, 4, 40, 40)
        with LiveBytes() as count:
            network(x, table.at(0, slice(0, 2), 1))
    tokens = 2 * 4 * 20 * 20
    said = tokens * config.dim * 4 * live_channels(config.dim, config.ffn_dim)
    assert 0.6 * said < count.peak < 1.25 * said


def test_what_waits_is_not_on_the_device(published: dict[str, BackboneFacts]) -> None:
    facts = published["14B"]
    none, block, model = (memory(facts, offload=o) for o in ("none", "block", "model"))
    assert none.waiting == 0 and block.waiting > 0.95 * none.weights
    assert block.weights < 0.1 * none.weights
    assert model.weights == none.weights == model.waiting
    assert block.device < model.device <= none.device  # activations alone outweigh the codec
    short = Work(5, 480, 832, 2 * facts.tokens(5, 480, 832), 480 * 832)
    swapped, kept = (
        memory_of(facts, RestoreConfig(offload=o), short, GPU, torch.bfloat16)
        for o in ("model", "none")
    )
    assert kept.device - swapped.device == kept.codec - kept.activations > 2e9
    quantised = memory(facts, weights="fp8")
    assert quantised.weights == pytest.approx(none.weights / 2, rel=0.05)


@pytest.mark.parametrize(
    ("name", "gigabytes", "settings"),
    [
        ("1.3B", 80, {}),
        ("14B", 80, {}),
        ("14B", 24, {"offload": "block"}),
        ("14B", 9, None),
    ],
)
def test_what_fits(
    published: dict[str, BackboneFacts], name: str, gigabytes: int, settings: Any
) -> None:
    facts = published[name]
    arguments = (facts, RestoreConfig(), work(facts), GPU, torch.bfloat16, gigabytes * GIB)
    assert remedy(*arguments) == settings


def test_only_what_is_supported_is_advised(published: dict[str, BackboneFacts]) -> None:
    facts = replace(published["14B"], can_wait=False)
    arguments = (facts, RestoreConfig(), work(facts), GPU, torch.bfloat16, 24 * GIB)
    assert remedy(*arguments) is None


def test_second_expert_counts_where_it_is_used(published: dict[str, BackboneFacts]) -> None:
    one = published["1.3B"]
    two = replace(one, parameters=2 * one.parameters, experts=(0.0, 0.875))
    assert memory(two, t_start=0.4).weights == memory(one).weights
    assert memory(two, t_start=0.9).weights == 2 * memory(one).weights


def test_on_a_cpu_waiting_weights_are_memory_too(published: dict[str, BackboneFacts]) -> None:
    facts = published["1.3B"]
    waits, stays = (
        memory_of(facts, RestoreConfig(offload=o), work(facts), CPU, torch.float32).device
        for o in ("block", "none")
    )
    assert waits > stays


def test_plan_carries_it(tmp_path: Path) -> None:
    path = write_headers(tmp_path / "wan.safetensors", SIZES["1.3B"])
    config = RestoreConfig(backbone=str(path), sr="none")
    plan = make_plan(config, 480, 832)
    assert plan.grid.length == 81 and len(plan.tiles) == 1
    assert what_fits(config, plan, plan.memory.device) == {}
    assert what_fits(config, plan, plan.memory.device - 10**9) == {"weights": "fp8"}
    smaller = make_plan(replace(config, vae_tile=(416, 240), tile=(416, 240)), 480, 832)
    assert smaller.memory.codec < plan.memory.codec / 3
    assert smaller.memory.activations < plan.memory.activations / 3


PEAK_OF_LOADING = """
import sys, torch
from pathlib import Path
from dtg_restore.engine.backbones.wan_layout import experts
from dtg_restore.engine.backbones.wan_weights import check, read
from dtg_restore.engine.config import RestoreConfig

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(l for l in lines if l.startswith(name)).split()[1])

torch.set_num_threads(1)
(expert,) = experts(Path(sys.argv[1]))
check(expert, sys.argv[2])
before = status("VmRSS")
network = read(expert, RestoreConfig(weights=sys.argv[2]), torch.device("cpu"), torch.bfloat16)
held = sum(t.nbytes for t in [*network.parameters(), *network.buffers()])
print(held, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("weights", ["auto", "int8"])
def test_loading_never_holds_a_model_twice(tmp_path: Path, weights: str) -> None:
    """The peak of a fresh process that loads 250 MB of weights: those, and one matrix."""
    config = WanConfig(768, 6, 10, 4608, 16, 64, 64, (1, 2, 2))
    path = write_headers(tmp_path / "wan.safetensors", config)
    command = [sys.executable, "-c", PEAK_OF_LOADING, str(path), weights]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    held, peak = map(int, result.stdout.split())
    assert held > 1e8 * (1.5 if weights == "auto" else 0.8)
    assert peak < 1.25 * held + 30e6


def test_what_reuse_and_caching_keep_is_counted() -> None:
    state = {
        tolerance: make_plan(RestoreConfig(device="cpu", **{tolerance: 0.1}), 64, 64).memory.state
        for tolerance in ("elide_tol", "reuse_tol", "cache_tol")
    }
    velocity = 4 * 3 * 16 * 64 * 64  # of a chunk of mini; the gap, and one for each phase
    assert state["reuse_tol"] - state["elide_tol"] == velocity
    assert state["cache_tol"] - state["elide_tol"] == (1 + 4) * velocity
