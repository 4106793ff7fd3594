"""Triton version of kernels/patch_decode.py: a program has whole tokens in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..patch_blocks import BLOCK, COLOURS, Phase
from ..tokens import sample_stride
from .patch_blocks import (
    channel_places,
    cosines,
    launch,
    red_places,
    row_places,
    tokens_here,
    transform,
)


@triton.jit
def _load_plane(
    z_ptr,
    other_ptr,
    weights_ptr,
    matrix,
    token,
    exists,
    per_sample,
    stride,
    plane,
    WEIGHTED: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The pixels of a plane, (TOKENS, 8, 2, 4)."""
    mask = exists[:, None, None]
    places = channel_places(token, plane)
    z = tl.load(z_ptr + places, mask=mask, other=0.0)
    if WEIGHTED:
        rows = row_places(token, per_sample, stride, plane)
        z *= tl.load(weights_ptr + rows, mask=mask, other=0.0)
        other = tl.load(other_ptr + places, mask=mask, other=0.0)
        z += other * tl.load(weights_ptr + 384 + rows, mask=mask, other=0.0)
        z += tl.load(weights_ptr + 768 + rows, mask=mask, other=0.0)
    return tl.reshape(transform(z, matrix), (TOKENS, 8, 2, 4))


@triton.jit
def _store_frame(x_ptr, place, exists, colour, grey, red_blue, green):
    mask = exists[:, None, None, None]
    # The norms of the colours, times that of the 2-point DCT.
    grey *= 0.4082482904638631
    red_blue *= 0.5
    green *= 0.28867513459481287
    tl.store(x_ptr + place, grey + red_blue - green, mask=mask)
    tl.store(x_ptr + colour + place, grey + 2.0 * green, mask=mask)
    tl.store(x_ptr + 2 * colour + place, grey - red_blue - green, mask=mask)


@triton.jit
def _patch_decode_kernel(
    z_ptr,
    other_ptr,
    weights_ptr,
    out_ptr,
    stride,
    total,
    colour,
    t,
    h,
    w,
    phase_t,
    phase_y,
    phase_x,
    WEIGHTED: tl.constexpr,
    TOKENS: tl.constexpr,
    QUADS: tl.constexpr,
):
    token, exists = tokens_here(total, TOKENS)
    matrix = tl.trans(cosines())
    n = t * h * w
    p, q, r = z_ptr, other_ptr, weights_ptr
    grey0 = _load_plane(p, q, r, matrix, token, exists, n, stride, 0, WEIGHTED, TOKENS)
    grey1 = _load_plane(p, q, r, matrix, token, exists, n, stride, 1, WEIGHTED, TOKENS)
    red0 = _load_plane(p, q, r, matrix, token, exists, n, stride, 2, WEIGHTED, TOKENS)
    red1 = _load_plane(p, q, r, matrix, token, exists, n, stride, 3, WEIGHTED, TOKENS)
    green0 = _load_plane(p, q, r, matrix, token, exists, n, stride, 4, WEIGHTED, TOKENS)
    green1 = _load_plane(p, q, r, matrix, token, exists, n, stride, 5, WEIGHTED, TOKENS)
    place = red_places(token, t, h, w, phase_t, phase_y, phase_x, 0, QUADS)
    _store_frame(out_ptr, place, exists, colour, grey0 + grey1, red0 + red1, green0 + green1)
    place = red_places(token, t, h, w, phase_t, phase_y, phase_x, 1, QUADS)
    _store_frame(out_ptr, place, exists, colour, grey0 - grey1, red0 - red1, green0 - green1)


def patch_decode(z: Tensor, phase: Phase, other: Tensor | None, weights: Tensor | None) -> Tensor:
    batch, t, h, w, _ = z.shape
    x = z.new_empty(batch, COLOURS, t * BLOCK[0], h * BLOCK[1], w * BLOCK[2])
    if x.numel() == 0:
        return x
    grid, arguments = launch(x, phase)
    _patch_decode_kernel[grid](
        z,
        z if other is None else other,
        z if weights is None else weights,
        x,
        0 if weights is None else sample_stride(weights),
        WEIGHTED=weights is not None,
        **arguments,
    )
    return x
