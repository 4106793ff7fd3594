"""The block transform of `patch_encode` and `patch_decode`: its matrices, its sizes, its checks."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .dispatch import Tolerance, address_reasons

BLOCK = (2, 8, 8)  # frames, rows, columns
COLOURS = 3
CHANNELS = COLOURS * BLOCK[0] * BLOCK[1] * BLOCK[2]  # 384

Phase = tuple[int, int, int]

# The sums are those of a fast DCT, not of the matrix: rounded a few times more or less.
TOLERANCE = {torch.float32: Tolerance(rtol=1e-6, atol=1.5e-6)}


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of size n, (n, n) float64; row k is the k-th frequency."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def opponent_matrix() -> Tensor:
    """Orthonormal colours: grey, red - blue, and green against both; (3, 3) float64."""
    rows = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """M6 (6, 6), colours and the 2-point DCT in time, and D64 (64, 64), the 8 x 8 DCT."""
    # What is made while a call is traced has no values, and must not be kept.
    return (_make if torch.compiler.is_compiling() else _made)(device, dtype)


@torch.inference_mode(False)  # a kept inference tensor would refuse to take part in training
def _make(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    colour_time = torch.kron(opponent_matrix(), dct_matrix(BLOCK[0]))
    space = torch.kron(dct_matrix(BLOCK[1]), dct_matrix(BLOCK[2]))
    return colour_time.to(device, dtype), space.to(device, dtype)


_made = cache(_make)


def check_pixels(x: Tensor) -> None:
    """ValueError unless x is (B, 3, T, H, W), whole blocks of floating-point values."""
    whole = x.ndim == 5 and x.shape[1] == COLOURS and x.is_floating_point()
    if not whole or any(side % block for side, block in zip(x.shape[2:], BLOCK, strict=True)):
        raise ValueError(
            f"x must be floating-point (B, 3, T, H, W) with T, H and W multiples of {BLOCK}, "
            f"got {x.dtype} {tuple(x.shape)}"
        )


def check_channels(z: Tensor) -> None:
    """ValueError unless z is (B, t, h, w, 384) of floating-point values."""
    if z.ndim != 5 or z.shape[-1] != CHANNELS or not z.is_floating_point():
        raise ValueError(
            f"z must be floating-point (B, t, h, w, {CHANNELS}), got {z.dtype} {tuple(z.shape)}"
        )


def check_rows(like: Tensor, shape: tuple[int, ...], **rows: Tensor) -> None:
    """ValueError unless these are (B, *shape) or (1, *shape), with the batch, dtype and device of
    `like`."""
    for name, tensor in rows.items():
        fits = tensor.shape[1:] == shape and tensor.shape[0] in (1, like.shape[0])
        if not fits or (tensor.dtype, tensor.device) != (like.dtype, like.device):
            raise ValueError(
                f"{name} must be ({like.shape[0]} or 1, {', '.join(map(str, shape))}) {like.dtype} "
                f"on {like.device}, got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )


def kernel_reasons(device_type: str, **tensors: Tensor | None) -> list[str]:
    """Why a kernel on `device_type` cannot take these: all are contiguous float32."""
    reasons = address_reasons(device_type, None, **tensors)  # type: ignore[arg-type]
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    others = [
        f"{n} is {t.dtype}, not float32" for n, t in given.items() if t.dtype != torch.float32
    ]
    empty = [f"{n} has an empty side" for n, t in given.items() if 0 in t.shape[1:]]
    return reasons + others + empty


def native_arguments(x: Tensor, phase: Phase) -> dict[str, Any]:
    """Those that both directions share; x are the pixels."""
    return {
        "batch": x.shape[0],
        "size": tuple(x.shape[2:]),
        "phase": phase,
        "num_threads": torch.get_num_threads(),
    }
