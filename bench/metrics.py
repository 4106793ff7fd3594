"""Full-reference measures of frames (T, 3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all frames, RGB; infinite for equal ones."""
    error = (frames.clamp(0, 1) - reference).square().mean()
    return (-10 * torch.log10(error)).item()


def temporal_error(frames: Tensor, reference: Tensor) -> float:
    """Mean error of the differences between neighbouring frames, in 8-bit code values.

    It counts what moves and should not (flicker, jitter, boiling) and what should and does not.
    """
    return 255 * (frames.diff(dim=0) - reference.diff(dim=0)).abs().mean().item()


def block_step(frames: Tensor, block: int = 8) -> float:
    """Mean step across the edges of `block` x `block` blocks over the mean step elsewhere.

    The grid may lie anywhere: of its offsets the one that shows most counts.  About 1 where no grid
    shows.
    """
    ratios: list[float] = []
    for dim in (-2, -1):
        others = [d for d in range(frames.ndim) if d != frames.ndim + dim]
        steps = frames.diff(dim=dim).abs().mean(dim=others)  # at every position along the axis
        offset = torch.arange(len(steps)) % block
        by_offset = torch.stack([steps[offset == k].mean() for k in range(block)])
        elsewhere = (by_offset.sum() - by_offset) / (block - 1)
        ratios.append((by_offset / elsewhere).max().item())
    return sum(ratios) / len(ratios)
