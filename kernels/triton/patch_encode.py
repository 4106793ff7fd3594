"""Triton version of kernels/patch_encode.py: a program has whole tokens in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..patch_blocks import CHANNELS, Phase
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
def _store_plane(
    out_ptr,
    shift_ptr,
    scale_ptr,
    x,
    matrix,
    token,
    exists,
    per_sample,
    shift_stride,
    scale_stride,
    plane,
    AFFINE: tl.constexpr,
):
    z = transform(x, matrix)
    mask = exists[:, None, None]
    if AFFINE:
        places = row_places(token, per_sample, shift_stride, plane)
        shift = tl.load(shift_ptr + places, mask=mask, other=0.0)
        places = row_places(token, per_sample, scale_stride, plane)
        z = (z - shift) * tl.load(scale_ptr + places, mask=mask, other=0.0)
    tl.store(out_ptr + channel_places(token, plane), z, mask=mask)


@triton.jit
def _load_frame(x_ptr, place, exists, colour, TOKENS: tl.constexpr):
    """Grey, red - blue and green of a frame's pixels, (TOKENS, 8, 8) each."""
    mask = exists[:, None, None, None]
    r = tl.load(x_ptr + place, mask=mask, other=0.0)
    g = tl.load(x_ptr + colour + place, mask=mask, other=0.0)
    b = tl.load(x_ptr + 2 * colour + place, mask=mask, other=0.0)
    # The norms of the colours, times that of the 2-point DCT.
    grey = (r + g + b) * 0.4082482904638631
    red_blue = (r - b) * 0.5
    green = (2.0 * g - r - b) * 0.28867513459481287
    return (
        tl.reshape(grey, (TOKENS, 8, 8)),
        tl.reshape(red_blue, (TOKENS, 8, 8)),
        tl.reshape(green, (TOKENS, 8, 8)),
    )


@triton.jit
def _patch_encode_kernel(
    x_ptr,
    shift_ptr,
    scale_ptr,
    out_ptr,
    shift_stride,
    scale_stride,
    total,
    colour,
    t,
    h,
    w,
    phase_t,
    phase_y,
    phase_x,
    AFFINE: tl.constexpr,
    TOKENS: tl.constexpr,
    QUADS: tl.constexpr,
):
    token, exists = tokens_here(total, TOKENS)
    matrix = cosines()
    place = red_places(token, t, h, w, phase_t, phase_y, phase_x, 0, QUADS)
    grey0, red0, green0 = _load_frame(x_ptr, place, exists, colour, TOKENS)
    place = red_places(token, t, h, w, phase_t, phase_y, phase_x, 1, QUADS)
    grey1, red1, green1 = _load_frame(x_ptr, place, exists, colour, TOKENS)
    for plane in tl.static_range(6):
        if plane == 0:
            x = grey0 + grey1
        elif plane == 1:
            x = grey0 - grey1
        elif plane == 2:
            x = red0 + red1
        elif plane == 3:
            x = red0 - red1
        elif plane == 4:
            x = green0 + green1
        else:
            x = green0 - green1
        _store_plane(
            out_ptr,
            shift_ptr,
            scale_ptr,
            x,
            matrix,
            token,
            exists,
            t * h * w,
            shift_stride,
            scale_stride,
            plane,
            AFFINE,
        )


def patch_encode(x: Tensor, phase: Phase, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    batch, _, frames, height, width = x.shape
    z = x.new_empty(batch, frames // 2, height // 8, width // 8, CHANNELS)
    if z.numel() == 0:
        return z
    grid, arguments = launch(x, phase)
    _patch_encode_kernel[grid](
        x,
        x if shift is None else shift,
        x if scale is None else scale,
        z,
        0 if shift is None else sample_stride(shift),
        0 if scale is None else sample_stride(scale),
        AFFINE=shift is not None,
        **arguments,
    )
    return z
