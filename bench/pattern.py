"""A clip that is made, for benchmarks that need no particular one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def moving(num_frames: int, height: int, width: int) -> Iterator[Tensor]:
    """Frames (3, H, W) in [0, 1] of a pattern that drifts, so that no two are equal."""
    generator = torch.Generator().manual_seed(0)
    picture = F.interpolate(
        torch.rand(1, 3, 9, 13, generator=generator), (height, 4 * width), mode="bicubic"
    )[0].clamp(0, 1)
    for i in range(num_frames):
        yield picture.roll(-i, dims=-1)[..., :width].clone()
