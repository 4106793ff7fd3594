"""Ramps of red, green, blue and grey, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

WIDTH = 256
CHANNELS = ("red", "green", "blue")
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))


def ramps(bits: int, height: int) -> list[torch.Tensor]:
    """One frame (3, height, WIDTH) a colour, from 0 to 1, on code values."""
    peak = 2**bits - 1
    ramp = (torch.linspace(0, 1, WIDTH) * peak).round() / peak
    return [torch.tensor(colour)[:, None, None] * ramp.expand(height, WIDTH) for colour in COLOURS]


def error(
    frames: Iterable[torch.Tensor], wanted: Sequence[torch.Tensor], bits: int, margin: int = 0
) -> torch.Tensor:
    """Greatest difference by channel, in code values of `bits`; columns of the margin are left
    out at either side."""
    differences = [
        (frame - right).abs()[..., margin : WIDTH - margin].amax((1, 2))
        for frame, right in zip(frames, wanted, strict=True)
    ]
    return torch.stack(differences).amax(0) * (2**bits - 1)
