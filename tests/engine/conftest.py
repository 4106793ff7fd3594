"""A backbone small enough that every test runs the real thing, with weights far from zero."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dtg_restore.engine.backbones.mini import MiniBackbone, MiniDiT
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.types import ColourTags

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def network(random_network: Callable[..., MiniDiT]) -> MiniDiT:
    return random_network()


@pytest.fixture
def backbone(network: MiniDiT) -> MiniBackbone:
    return MiniBackbone(network, CPU, torch.float32)


@pytest.fixture(scope="session")
def weights(
    random_network: Callable[..., MiniDiT], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The random network as a checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network = random_network()
    save_checkpoint(path, network.state_dict(), network.describe(), {"steps": 0})
    return path


@pytest.fixture
def load(weights: Path) -> Callable[..., Restorer]:
    """`Restorer.load` with the small backbone, chunks of 4 frames and tiles of 16 pixels."""

    def load(**settings: Any) -> Restorer:
        small: dict[str, Any] = {
            "backbone": str(weights),
            "sr": "none",
            "device": "cpu",
            "chunk": 4,
            "overlap": 2,
            "shots": "none",  # frames of `clip` have nothing in common
            "tile": (16, 16),
            "tile_overlap": 8,
            "steps": 2,
        }
        return Restorer.load(**(small | settings))

    return load


@pytest.fixture
def clip() -> Callable[..., Tensor]:
    """Frames (T, 3, H, W) in [0, 1]: noise, so that no two places are alike."""

    def clip(num_frames: int, height: int, width: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(num_frames, 3, height, width, generator=generator)

    return clip


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Frames as a folder of PNG files."""

    def pictures(frames: Tensor, name: str = "source", first_number: int = 0) -> Path:
        folder = tmp_path / name
        height, width = frames.shape[-2:]
        with open_writer(
            folder,
            width=width,
            height=height,
            fps=Fraction(24),
            colour=ColourTags(),
            first_number=first_number,
        ) as writer:
            for frame in frames:
                writer.write(frame)
        return folder

    return pictures


# -- a recorder in the place of CUDA --------------------------------------------------------------

FROM_HOST = {torch.tensor, torch.as_tensor, torch.from_numpy}
TO_HOST = {Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__float__, Tensor.__bool__}


class Recording(TorchFunctionMode):
    """Within it the host neither reads the device nor copies to it, as within a CUDA recording."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Origins of tiles are read on a CPU alone.
        is_origin = func is Tensor.tolist and args[0].dtype == torch.int32
        if func in FROM_HOST | TO_HOST and not is_origin:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        return func(*args, **(kwargs or {}))


class Recorder:
    """Like a CUDA graph: a replay computes from the recorded memory into the same outputs."""

    def __init__(self) -> None:
        self.records = self.replays = 0

    def __call__(self, call: Callable[[], Any], warm: bool) -> tuple[Callable[[], None], Any]:
        self.records += 1
        with Recording():
            outputs = call()

        def replay() -> None:
            self.replays += 1
            for output, value in zip(tensors(outputs), tensors(call()), strict=True):
                output.copy_(value)

        return replay, outputs


def tensors(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
