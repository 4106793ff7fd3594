"""Small models with random weights, tiny clips, and the command in this process or another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from dtg_restore.cli.main import main
from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.engine.types import ColourTags

NUM_FRAMES, WIDTH, HEIGHT = 11, 32, 24
SR = {"kind": "mini", "scale": 2, "width": 8, "depth": 1}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Files:
    """Paths that tests share and only read."""

    clip: str
    backbone: str
    sr: str
    text: str
    damaged: str

    @property
    def models(self) -> list[str]:
        return ["--backbone", self.backbone, "--sr", self.sr]

    @property
    def quick(self) -> list[str]:
        """Several chunks and tiles, few evaluations."""
        cut = ["--chunk", "4", "--overlap", "2", "--tile", "24x24", "--tile-overlap", "8"]
        sampler = ["--steps", "2", "--alpha-clip"]
        return [*self.models, *cut, *sampler, "--device", "cpu", "--progress", "none"]


def write_clip(path: Path | str, num_frames: int, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Moving noise: no two frames or places are alike."""
    generator = torch.Generator().manual_seed(0)
    size = {"width": width, "height": height}
    with open_writer(
        path, **size, fps=Fraction(24), colour=ColourTags(), codec="ffv1", overwrite=True
    ) as writer:
        for _ in range(num_frames):
            writer.write(torch.rand(3, height, width, generator=generator))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    names = ("clip.mkv", "small.safetensors", "sr.safetensors", "text.mp4", "damaged.safetensors")
    clip, backbone, sr, text, damaged = (folder / name for name in names)
    torch.manual_seed(0)
    network = MiniDiT(MiniConfig(width=48, depth=1, heads=2, ffn_dim=96))
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    save_checkpoint(backbone, network.state_dict(), network.describe(), {})
    net = MiniSR(SR["scale"], SR["width"], SR["depth"])
    torch.nn.init.normal_(net.tail.weight, std=0.1)
    save_checkpoint(sr, net.state_dict(), SR, {})
    write_clip(clip, NUM_FRAMES)
    text.write_text("This is a letter, not a film.\n" * 50)
    damaged.write_bytes(backbone.read_bytes()[:1000])
    return Files(*(str(path) for path in (clip, backbone, sr, text, damaged)))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and its children do, this process among them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    torch.set_num_threads(1)

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


def start(*arguments: str, cwd: Path, code: str | None = None) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = ["-c", code] if code else ["-m", "dtg_restore.cli", *arguments]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
