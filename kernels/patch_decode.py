"""The channels of the block transform to pixels, in one pass over memory.

    x = blocks^-1(M6^T . z . D64),        or of w0 z + w1 other + w2, per sample and channel

The inverse of `patch_encode`; the transform is orthonormal.  One read of each input and one write:
8 bytes a value, 12 with `other`.
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


def patch_decode(
    z: Tensor,
    phase: Phase = (0, 0, 0),
    other: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    implementation: str | None = None,
) -> Tensor:
    """The pixels whose channels are z, or `w0 z + w1 other + w2`.

    Parameters
    ----------
    z : (B, t, h, w, 384), floating-point; channels in the order of `patch_encode`
    phase : frames, rows and columns by which the grid of blocks is moved, cyclically
    other : like `z`; given together with `weights` or not at all
    weights : (B, 3, 384), or (1, 3, 384) for all samples: w0, w1 and w2; of the dtype of `z`
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (B, 3, 2t, 8h, 8w) of the dtype of `z`, in new memory.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    patch_blocks.check_channels(z)
    if other is not None and weights is not None:
        patch_blocks.check_rows(z, (3, CHANNELS), weights=weights)
        patch_blocks.check_rows(z, tuple(z.shape[1:]), other=other)
        if other.shape != z.shape:
            raise ValueError(f"other is {tuple(other.shape)}, but z is {tuple(z.shape)}")
    elif (other is None) != (weights is None):
        raise ValueError("other and weights are given together or not at all")
    return OP(z, phase, other, weights, name=implementation)


def reference(z: Tensor, phase: Phase, other: Tensor | None, weights: Tensor | None) -> Tensor:
    if other is not None and weights is not None:
        w0, w1, w2 = weights[:, :, None, None, None].unbind(1)
        z = w0 * z + w1 * other + w2
    colour_time, space = patch_blocks.matrices(z.device, z.dtype)
    batch, t, h, w, _ = z.shape
    x = colour_time.T @ z.unflatten(-1, (6, 64)) @ space
    x = x.reshape(batch, t, h, w, COLOURS, *BLOCK).permute(0, 4, 1, 5, 2, 6, 3, 7)
    x = x.reshape(batch, COLOURS, t * BLOCK[0], h * BLOCK[1], w * BLOCK[2])
    return x.roll(list(phase), dims=(2, 3, 4)) if any(phase) else x


def _native(z: Tensor, phase: Phase, other: Tensor | None, weights: Tensor | None) -> Tensor:
    batch, t, h, w, _ = z.shape
    x = z.new_empty(batch, COLOURS, t * BLOCK[0], h * BLOCK[1], w * BLOCK[2])
    native.library().patch_decode(
        z=z.data_ptr(),
        other=0 if other is None else other.data_ptr(),
        weights=tokens.native_rows(None if weights is None else weights.flatten(1)),
        x=x.data_ptr(),
        **patch_blocks.native_arguments(x, phase),
    )
    return x


def _native_unsupported(
    z: Tensor, _: Phase, other: Tensor | None, weights: Tensor | None
) -> list[str]:
    return patch_blocks.kernel_reasons("cpu", z=z, other=other, weights=weights)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.patch_decode import patch_decode as triton_decode

    return triton_decode


def _triton_unsupported(
    z: Tensor, _: Phase, other: Tensor | None, weights: Tensor | None
) -> list[str]:
    return patch_blocks.kernel_reasons(
        triton_kernels.device_type(), z=z, other=other, weights=weights
    )


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] = (8, 8, 8, 8),
    phase: Phase = (1, 4, 4),
    samples: int | None = None,
    transposed: bool = False,
) -> tuple[Tensor, Phase, Tensor | None, Tensor | None]:
    z, other = 0.5 * tokens.normal(2, *shape, CHANNELS, seed=0, device=device)
    z = (z.mT.contiguous().mT if transposed else z).to(dtype)
    if samples == 0:
        return z, phase, None, None
    weights = tokens.normal(samples or shape[0], 3, CHANNELS, seed=1, device=device)
    return z, phase, other, 0.5 * weights


OP = Op(
    name="patch_decode",
    formula="blocks^-1(M6^T . (w0 z + w1 other + w2) . D64)",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=patch_blocks.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 3, 3, 9), phase=(3, 5, -3))),
        Case("one token", partial(_inputs, shape=(3, 1, 1, 1))),
        Case("empty", partial(_inputs, shape=(0, 1, 1, 1), samples=1)),
        Case("plain", partial(_inputs, shape=(2, 2, 2, 3), samples=0)),
        Case("plain, aligned", partial(_inputs, shape=(1, 1, 1, 3), phase=(0, 0, 0), samples=0)),
        Case("shared weights", partial(_inputs, shape=(2, 1, 2, 2), samples=1)),
        Case("non-contiguous", partial(_inputs, shape=(2, 2, 2, 3), transposed=True)),
        Case("production", _inputs),  # four tiles of `mini`, both branches
    ),
)
