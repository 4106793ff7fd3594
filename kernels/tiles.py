"""What the ops on tiles (N, C, T, h, w) of a state (1, C, T, H, W) have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def check_origins(origins: Tensor, device: torch.device) -> None:
    """ValueError unless these are (N, 2) int32 on `device`."""
    fits = origins.ndim == 2 and origins.shape[1] == 2 and origins.dtype == torch.int32
    if not fits or origins.device != device:
        raise ValueError(
            f"origins must be (N, 2) int32 on {device}, "
            f"got {tuple(origins.shape)} {origins.dtype} on {origins.device}"
        )


def origin_reasons(origins: Tensor) -> list[str]:
    """Why a kernel cannot take origins by their bare address."""
    if type(origins) is not Tensor:
        return ["origins is a tensor of a special kind"]
    return [] if origins.is_contiguous() else ["origins is not contiguous"]


def grid(
    device: torch.device, size: tuple[int, int], tile: tuple[int, int], step: tuple[int, int]
) -> Tensor:
    """Origins (N, 2) of tiles that cover `size`, `step` apart, the last ones at the far ends."""
    axes = [
        [*range(0, side - window, gap), side - window]
        for side, window, gap in zip(size, tile, step, strict=True)
    ]
    places = [(y, x) for y in axes[0] for x in axes[1]]
    return torch.tensor(places, dtype=torch.int32, device=device)
