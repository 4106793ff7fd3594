"""What of a picture is coarse: the levels of a pyramid, and the moments of a channel."""

from __future__ import annotations

import torch
from torch import Tensor

RADII = (1, 2, 4, 8, 16)  # places between the taps of each level
LEAST_STD = 1e-4  # a fortieth of a code value of 8 bits: a flat frame has no contrast to stretch


def statistics(frames: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std_r / std_x - 1 and difference of the means, (T, 3) float32 each, of "adain"."""
    x, r = frames.double(), reference.double()
    mean_x, mean_r = (clip.mean((2, 3), keepdim=True) for clip in (x, r))
    var_x, var_r = ((c - m).square().mean((2, 3)) for c, m in ((x, mean_x), (r, mean_r)))
    gain = var_r.sqrt() / var_x.sqrt().clamp_(min=LEAST_STD)
    gain = torch.where(var_x == var_r, torch.ones_like(gain), gain)
    shift = (mean_r - mean_x)[..., 0, 0]
    return mean_x[..., 0, 0].float(), (gain - 1).float(), shift.float()
