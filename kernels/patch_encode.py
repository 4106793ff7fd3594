"""Pixels to the channels of the block transform, in one pass over memory.

    z = M6 . blocks(x) . D64^T,        or (z - shift) * scale, per sample and channel

Blocks of 2 frames x 8 x 8 pixels go through an orthonormal DCT in time and space (`D64` is the
8 x 8 DCT as one matrix, `M6` the Kronecker product of the opponent colours and the 2-point DCT).
One read and one write of the values: 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native, patch_blocks, tokens
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op
from .patch_blocks import BLOCK, CHANNELS, COLOURS, Phase


def patch_encode(
    x: Tensor,
    phase: Phase = (0, 0, 0),
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    implementation: str | None = None,
) -> Tensor:
    """The channels z of the blocks of x, or `(z - shift) * scale`.

    Parameters
    ----------
    x : (B, 3, T, H, W), floating-point; T, H and W are multiples of 2, 8 and 8
    phase : frames, rows and columns by which the grid of blocks is moved, cyclically
    shift, scale : (B, 384), or (1, 384) for all samples, of the dtype of `x`; both or neither
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (B, T/2, H/8, W/8, 384) of the dtype of `x`, in new memory.  The channels are in the
    order (colour, frequency in time, in y, in x).

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    patch_blocks.check_pixels(x)
    if shift is not None and scale is not None:
        patch_blocks.check_rows(x, (CHANNELS,), shift=shift, scale=scale)
    elif (shift is None) != (scale is None):
        raise ValueError("shift and scale are given together or not at all")
    return OP(x, phase, shift, scale, name=implementation)


def reference(x: Tensor, phase: Phase, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    colour_time, space = patch_blocks.matrices(x.device, x.dtype)
    batch, _, frames, height, width = x.shape
    t, h, w = frames // BLOCK[0], height // BLOCK[1], width // BLOCK[2]
    if any(phase):
        x = x.roll([-p for p in phase], dims=(2, 3, 4))
    x = x.reshape(batch, COLOURS, t, BLOCK[0], h, BLOCK[1], w, BLOCK[2])
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, t, h, w, 6, 64)
    z = (colour_time @ (x @ space.T)).flatten(-2)
    if shift is None or scale is None:
        return z
    return (z - shift[:, None, None, None]) * scale[:, None, None, None]


def _native(x: Tensor, phase: Phase, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    batch, _, frames, height, width = x.shape
    z = x.new_empty(batch, frames // 2, height // 8, width // 8, CHANNELS)
    native.library().patch_encode(
        x=x.data_ptr(),
        shift=tokens.native_rows(shift),
        scale=tokens.native_rows(scale),
        z=z.data_ptr(),
        **patch_blocks.native_arguments(x, phase),
    )
    return z


def _native_unsupported(
    x: Tensor, _: Phase, shift: Tensor | None, scale: Tensor | None
) -> list[str]:
    return patch_blocks.kernel_reasons("cpu", x=x, shift=shift, scale=scale)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.patch_encode import patch_encode as triton_encode

    return triton_encode


def _triton_unsupported(
    x: Tensor, _: Phase, shift: Tensor | None, scale: Tensor | None
) -> list[str]:
    return patch_blocks.kernel_reasons(triton_kernels.device_type(), x=x, shift=shift, scale=scale)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] = (8, 16, 64, 64),
    phase: Phase = (1, 4, 4),
    samples: int | None = None,
    transposed: bool = False,
) -> tuple[Tensor, Phase, Tensor | None, Tensor | None]:
    batch, *size = shape
    x = 0.5 * tokens.normal(batch, COLOURS, *size, seed=0, device=device)
    x = (x.mT.contiguous().mT if transposed else x).to(dtype)
    if samples == 0:
        return x, phase, None, None
    rows = tokens.normal(2, samples or batch, CHANNELS, seed=1, device=device)
    return x, phase, 0.5 * rows[0], 1 + 0.1 * rows[1]


OP = Op(
    name="patch_encode",
    formula="(M6 . blocks(x) . D64^T - shift) * scale",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=patch_blocks.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 6, 24, 72), phase=(3, 5, -3))),
        Case("one token", partial(_inputs, shape=(3, 2, 8, 8))),
        Case("empty", partial(_inputs, shape=(0, 2, 8, 8), samples=1)),
        Case("plain", partial(_inputs, shape=(2, 4, 16, 24), samples=0)),
        Case("plain, aligned", partial(_inputs, shape=(1, 2, 8, 24), phase=(0, 0, 0), samples=0)),
        Case("shared rows", partial(_inputs, shape=(2, 2, 16, 16), samples=1)),
        Case("non-contiguous", partial(_inputs, shape=(2, 4, 16, 24), transposed=True)),
        Case("production", _inputs),  # four tiles of `mini`, both branches
    ),
)
