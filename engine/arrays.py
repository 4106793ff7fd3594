"""Clips in memory: what callers hand over, as frames, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError


def checked(frames: Iterator[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
    """The frames; InputError at one that is not floating point (3, *size)."""
    for i, frame in enumerate(frames):
        if tuple(frame.shape) != (3, *size) or not frame.is_floating_point():
            raise InputError(
                f"frame {i} is {frame.dtype} {tuple(frame.shape)}: floating point {(3, *size)} is "
                "expected"
            )
        yield frame


def as_frames(frames: np.ndarray | Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Frames (T, 3, H, W) fp32 in [0, 1], and the way back to the caller's kind of array."""
    is_array = isinstance(frames, np.ndarray)
    try:  # torch takes neither reversed nor read-only arrays
        x = torch.as_tensor(np.require(frames, requirements=("C", "W")) if is_array else frames)
    except (TypeError, ValueError) as error:
        raise InputError(f"frames are no array of numbers: {error}") from error
    if x.ndim != 4 or x.shape[0] == 0 or 0 in x.shape:
        raise InputError(
            f"frames of shape {tuple(x.shape)}: (T, H, W, 3) or (T, 3, H, W) is expected"
        )
    if x.dtype == torch.uint8 and x.shape[-1] == 3:

        def to_bytes(y: Tensor) -> Any:
            y = (y.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            return y.cpu().numpy() if is_array else y

        return x.permute(0, 3, 1, 2).float() / 255, to_bytes
    if x.is_floating_point() and x.shape[1] == 3:
        return x.float(), lambda y: y.cpu().numpy() if is_array else y
    raise InputError(
        f"frames are {x.dtype} {tuple(x.shape)}: (T, H, W, 3) uint8 or (T, 3, H, W) "
        "floating point is expected"
    )
