"""The C++ library and its example, built by CMake, and bundles for it, compiled by AOTInductor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT
from dtg_restore.engine.backbones.wan import facts_for
from dtg_restore.engine.backbones.wan_layout import WanConfig
from dtg_restore.engine.bundle.facts import to_json
from dtg_restore.engine.bundle.hashes import file_facts
from dtg_restore.engine.bundle.machine import needs_of
from dtg_restore.engine.bundle.manifest import Manifest, write_manifest
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.codecs.wan_config import WanVaeConfig
from dtg_restore.engine.runtimes.base import Component
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.engine.text.embeds import write_embeds

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TEXT, WIDTH, HEAD = 6, 8, 4  # tokens and width of a prompt, and of the stand-in of a network


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build of csrc/example, which stands alone; with ONNX Runtime where
    DTG_ORT_ROOT is set."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("no CMake or no C++ compiler on this machine")
    build = tmp_path_factory.mktemp("build")
    configure = ["cmake", "-S", ROOT / "csrc/example", "-B", build, "-DDTG_AOT=on"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DDTG_ORT_ROOT={os.environ.get('DTG_ORT_ROOT', '')}"]
    configure += ["-G", "Ninja"] if shutil.which("ninja") else []
    for command in (configure, ["cmake", "--build", build, "--parallel", "2"]):
        made = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert made.returncode == 0, made.stdout + made.stderr
    return build


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def compiling(folder: Path) -> Iterator[None]:
    """With a cache of bundles in `folder`; and the glue around kernels, of which nothing of a
    result depends, is compiled in haste."""
    import torch._inductor.config as inductor

    torch.set_num_threads(1)
    haste = inductor.patch({"aot_inductor.compile_wrapper_opt_level": "O0"})
    with pytest.MonkeyPatch.context() as patch, haste:
        patch.setenv("DTG_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="session")
def mini(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small `mini` and a small super-resolution net, exported as a user does it."""
    from dtg_restore.export.build import build_bundle
    from dtg_restore.export.request import ExportRequest

    folder = tmp_path_factory.mktemp("mini")
    torch.manual_seed(0)
    network = MiniDiT(MiniConfig(width=16, depth=1, heads=1, ffn_dim=32))
    for weight in (network.proj_out.weight, network.mean):
        nn.init.normal_(weight, std=0.1)
    nn.init.normal_(network.tag_embedding)
    network.sd.uniform_(0.05, 0.8)
    save_checkpoint(folder / "mini.safetensors", network.state_dict(), network.describe(), {})
    sr = MiniSR(2, width=8, depth=1)
    for weight in sr.parameters():
        nn.init.normal_(weight, std=0.2)
    kind = {"kind": "mini", "scale": 2, "width": 8, "depth": 1}
    save_checkpoint(folder / "sr.safetensors", sr.state_dict(), kind, {})
    request = ExportRequest(
        backbone=str(folder / "mini.safetensors"),
        sr=str(folder / "sr.safetensors"),
        to="aot",
        tile=((24, 16),),
        chunk=4,
        batch=(2,),
    )
    with compiling(folder):
        return build_bundle(request, target=folder / "bundle").folder


class Condition(nn.Module):
    """What a network's tables are, of some numbers that depend on all that is given."""

    def __init__(self, expert: int):
        super().__init__()
        self.expert = expert

    def forward(self, times: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        rates = torch.arange(1.0, 1 + HEAD)
        waves = torch.sin((1 + self.expert) * times[:, None, None] * rates)  # (n, 1, HEAD)
        modulation = waves.expand(-1, 6, -1)[None].contiguous()
        keys = text[None, :, None, :, :HEAD].contiguous()  # (1, 2, 1, TEXT, HEAD)
        return modulation, waves.expand(-1, 2, -1).contiguous(), keys, keys * 0.5


class Velocity(nn.Module):
    def forward(
        self, x: Tensor, modulation: Tensor, final: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        shift = (keys * values).mean((0, 2, 3, 4)) + final.mean((1, 2))  # (B,)
        scale = modulation[0].mean((1, 2))
        return (
            torch.tanh(x * (1 + scale[:, None, None, None, None]))
            + shift[:, None, None, None, None]
        )


class Encode(nn.Module):
    """Averages of the pixels, what was before, and the place in the tile."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.linspace(-1, 1, 48).reshape(16, 3, 1, 1))
        self.register_buffer("place", torch.linspace(0.8, 1.2, 16).reshape(4, 4))

    def forward(self, pixels: Tensor, *past: Tensor) -> tuple[Tensor, Tensor]:
        means = F.avg_pool2d(pixels, 8).mean(0, keepdim=True)
        z = torch.tanh(F.conv2d(means, self.mix)) * self.place
        return z + 0.5 * sum(past), z


class Decode(nn.Module):
    def forward(self, z: Tensor, *past: Tensor) -> tuple[Tensor, Tensor]:
        frames = [z + 0.25 * k * sum(past) for k in range(4)] if past else [z]
        squares = torch.cat(frames)[:, :12].repeat(1, 16, 1, 1)  # (n, 192, 4, 4)
        return torch.sin(F.pixel_shuffle(squares, 8)), z


def stand_ins() -> Iterator[Any]:
    """Stages of two experts and of a codec with caches, as a Wan model has them, each a few
    operations; the codec's tile is 32 x 32 pixels."""
    from dtg_restore.export.stage import OpenAxis, Stage

    tables = ("modulation", "final", "keys", "values")
    times = {"times": {0: OpenAxis("n", 1, 10, 4096)}}
    given = {"times": torch.linspace(1, 0, 10), "text": torch.zeros(2, TEXT, WIDTH)}
    for expert in (0, 1):
        yield Stage(f"condition.{expert}", Condition(expert), given, tables, times)
    keys = torch.zeros(1, 1, 1, TEXT, HEAD)
    rows = {"modulation": torch.zeros(1, 1, 6, HEAD), "final": torch.zeros(1, 2, HEAD)}
    inputs = {"x": torch.zeros(1, 16, 3, 4, 4)} | rows | {"keys": keys, "values": keys}
    yield Stage("velocity.0.1x9x32x32", Velocity(), inputs, ("v",))
    z, frames = torch.zeros(1, 16, 4, 4), torch.zeros(4, 3, 32, 32)
    for way, module, x, y, first, later in (
        ("encode", Encode(), "pixels", "z", frames[:1], frames),
        ("decode", Decode(), "z", "pixels", z, z),
    ):
        yield Stage(f"{way}_first.32x32", module, {x: first}, (y, "cache_0"))
        yield Stage(f"{way}_next.32x32", module, {x: later, "past_0": z}, (y, "cache_0"))


@pytest.fixture(scope="session")
def wan(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as one of a Wan model with two experts, of `stand_ins`."""
    from dtg_restore.export.aot import to_aot

    folder = tmp_path_factory.mktemp("wan")
    with compiling(folder):
        components = {s.name: Component(*to_aot(s, folder, CPU)) for s in stand_ins()}
    components["velocity.1.1x9x32x32"] = components["velocity.0.1x9x32x32"]
    generator = torch.Generator().manual_seed(2)
    both = [{"prompt_embeds": torch.randn(1, n, WIDTH, generator=generator)} for n in (TEXT, 4)]
    write_embeds(folder / "prompts.safetensors", *both)
    buckets, config = (Bucket(9, 32, 32, (1,)),), WanVaeConfig()
    facts = replace(
        facts_for(WanConfig(8, 2, 1, 8, 16, WIDTH, 8, (1, 2, 2)), 0, experts=(0.0, 0.25)),
        buckets=buckets,
    )
    codec = {"kind": "wan", "config": asdict(config), "facts": to_json(config.facts)}
    models = {
        "backbone": {
            "family": "wan",
            "facts": to_json(facts),
            "phases": [[0, 0, 0]],
            "tags": None,
            "text_tokens": TEXT,
            "prompts": "prompts.safetensors",
            "source": {"path": "/nowhere", "sha256": "0"},
        },
        "codec": codec | {"tile": [32, 32], "caches": {"encode": 1, "decode": 1}},
    }
    manifest(folder, models, components)
    return folder


def manifest(folder: Path, models: dict[str, Any], components: dict[str, Component]) -> None:
    files = {f.name: file_facts(f) for f in folder.iterdir()}
    needs = needs_of("aot", CPU)
    write_manifest(
        folder,
        Manifest("0" * 64, "aot", "cpu", "fp32", models, components, needs, {}, files),
    )


@pytest.fixture
def clip() -> Callable[..., Tensor]:
    """(T, 3, H, W) in [0, 1]: noise over slow waves."""

    def clip(num_frames: int, height: int, width: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(num_frames, 3, height, width, generator=generator)
        return 0.5 * noise + 0.25 + 0.25 * torch.sin(torch.arange(width) / 9)

    return clip
