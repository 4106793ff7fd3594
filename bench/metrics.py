"""Measures of frames (T, 3, H, W) in [0, 1], most of them against a reference."""

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


def luma(frames: Tensor) -> Tensor:
    """Y' of BT.709 (T, H, W) of gamma-encoded frames."""
    return torch.einsum("tchw,c->thw", frames, frames.new_tensor((0.2126, 0.7152, 0.0722)))


def mean_steps(images: Tensor) -> Tensor:
    """Mean absolute change from every image of (T, H, W) to the next one, (T - 1,)."""
    return images.diff(dim=0).abs().mean(dim=(-2, -1))


def sharpness(images: Tensor) -> Tensor:
    """Mean absolute difference of a pixel to the mean of its four neighbours, (T,)."""
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return (images[:, 1:-1, 1:-1] - around / 4).abs().mean(dim=(-2, -1))
