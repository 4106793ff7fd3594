"""What the ops on rows of tokens (B, N, D) have in common: checks, addresses, inputs of cases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native
from .dispatch import Tolerance

# The arithmetic is in float32 whatever the dtype.  In float32 the order of a row's sum differs; in
# 16 bits a result may be rounded to the neighbour (Triton's interpreter always rounds down).
TOLERANCE = {
    torch.float32: Tolerance(rtol=1.5e-6, atol=1.5e-6),
    torch.bfloat16: Tolerance(rtol=2**-7, atol=1e-5),
    torch.float16: Tolerance(rtol=2**-10, atol=1e-5),
}


def check_tokens(x: Tensor, name: str = "x") -> None:
    """ValueError unless x is (B, N, D) of a dtype that the ops take."""
    if x.ndim != 3:
        raise ValueError(f"{name} must be (B, N, D), got {tuple(x.shape)}")
    if x.dtype not in TOLERANCE:
        raise ValueError(f"{name} must be float32, bfloat16 or float16, got {x.dtype}")


def check_rows(x: Tensor, **weights: Tensor) -> None:
    """ValueError unless x is (..., D) of a dtype that the ops take, and these (D,) beside it."""
    if x.ndim == 0 or x.dtype not in TOLERANCE:
        raise ValueError(
            f"x must be (..., D) float32, bfloat16 or float16, got {tuple(x.shape)} {x.dtype}"
        )
    check_width(x, **weights)


def check_samples(x: Tensor, **rows: Tensor | None) -> None:
    """ValueError unless these, where given, are (B, D) or (1, D) on the device of x (B, N, D)."""
    batch, _, dim = x.shape
    for name, tensor in rows.items():
        if tensor is None:
            continue
        fits = tensor.ndim == 2 and tensor.shape[1] == dim and tensor.shape[0] in (1, batch)
        if not fits or tensor.device != x.device:
            raise ValueError(
                f"{name} must be ({batch} or 1, {dim}) on {x.device}, "
                f"got {tuple(tensor.shape)} on {tensor.device}"
            )


def check_width(x: Tensor, **weights: Tensor) -> None:
    """ValueError unless these are (D,) on the device of x (..., D)."""
    for name, tensor in weights.items():
        if tensor.shape != x.shape[-1:] or tensor.device != x.device:
            raise ValueError(
                f"{name} must be ({x.shape[-1]},) on {x.device}, "
                f"got {tuple(tensor.shape)} on {tensor.device}"
            )


def sample_stride(rows: Tensor) -> int:
    """Values from one sample's row of (B, D) to the next one's; 0 where all share one."""
    return 0 if rows.ndim == 1 or rows.shape[0] == 1 else rows.stride(0)


def native_rows(rows: Tensor | None) -> tuple[int, int]:
    """Address and stride, as the native library takes (B, D) float32; null where not given."""
    return (0, 0) if rows is None else (rows.data_ptr(), sample_stride(rows))


def native_dtype_reasons(x: Tensor) -> list[str]:
    """float16 is for GPUs: no CPU computes in it."""
    return ["x is torch.float16"] if x.dtype == torch.float16 else []


def native_arguments(x: Tensor) -> dict[str, Any]:
    """Those that all native ops on tokens share."""
    return {
        "shape": tuple(x.shape),
        "dtype": native.DTYPE_CODES[x.dtype],
        "num_threads": torch.get_num_threads(),
    }


def native_rows_arguments(x: Tensor) -> dict[str, Any]:
    """Those that native ops on rows (..., D) share."""
    return {
        "num": x.numel() // x.shape[-1] if x.shape[-1] else 0,
        "dim": x.shape[-1],
        "dtype": native.DTYPE_CODES[x.dtype],
        "num_threads": torch.get_num_threads(),
    }


def production_tokens(device: torch.device) -> int:
    """One latent frame of 832 x 480; on a GPU all 21 of a clip of 81 frames."""
    return 21 * 1560 if device.type == "cuda" else 1560


def normal(*shape: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
