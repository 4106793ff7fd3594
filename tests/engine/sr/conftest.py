import pytest
import torch

from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.sr.mini import MiniSR

TINY = {"kind": "mini", "scale": 2, "width": 8, "depth": 3}


def random_net(scale: int = 2) -> MiniSR:
    """A small network whose correction is far from zero, so that mistakes show."""
    torch.manual_seed(0)
    net = MiniSR(scale, TINY["width"], TINY["depth"])
    torch.nn.init.normal_(net.tail.weight, std=0.1)
    return net


@pytest.fixture
def tiny(tmp_path):
    """Path of a small checkpoint with random weights."""
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, random_net().state_dict(), TINY, {})
    return path
