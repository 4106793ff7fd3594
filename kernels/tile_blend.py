"""Tiles put together again: windowed overlap-add.

    out[0, c, t, y, x] = sum_n w_n(y, x) tiles[n, c, t, y - y_n, x - x_n]
    w_n(y, x) = window_y[n, y - y_n] window_x[n, x - x_n]

over the tiles n that cover the place, in their order, whatever the number of threads.  Where the
windows sum to one at every place, so that tiles that agree are kept, nothing needs to be divided.
One read of the tiles and one write of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native, tiles, tokens
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons
from .tile_gather import Size

MAX_CUDA_TILES = 2048  # whose origins the kernel keeps in shared memory


def tile_blend(
    values: Tensor,
    origins: Tensor,
    window_y: Tensor,
    window_x: Tensor,
    size: Size,
    *,
    implementation: str | None = None,
) -> Tensor:
    """The sum of the tiles, each weighted by its separable window.

    Parameters
    ----------
    values : (N, C, T, h, w), float32 or bfloat16; the tiles
    origins : (N, 2) int32, the row and the column of the result where each tile begins; what
        lies outside of it is cut off
    window_y, window_x : (N, h) and (N, w), float32; the window of tile n is their outer product
    size : (H, W) of the result
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (1, C, T, H, W) float32, in new memory, 0 where no tile is; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(values, origins, window_y, window_x, size)
    return OP(values, origins, window_y, window_x, size, name=implementation)


def reference(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, size: Size
) -> Tensor:
    _, channels, frames, height, width = values.shape
    out = torch.zeros(1, channels, frames, *size, device=values.device)
    windows = window_y[:, :, None] * window_x[:, None, :]
    for tile, window, (y, x) in zip(values, windows, origins.tolist(), strict=True):
        top, bottom = max(0, -y), min(height, size[0] - y)
        left, right = max(0, -x), min(width, size[1] - x)
        if top < bottom and left < right:
            part = (tile.float() * window)[..., top:bottom, left:right]
            out[0, :, :, y + top : y + bottom, x + left : x + right] += part
    return out


def _check(values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, size: Size) -> None:
    if values.ndim != 5 or values.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"values must be float32 or bfloat16 (N, C, T, h, w), "
            f"got {values.dtype} {tuple(values.shape)}"
        )
    if min(size) < 0:
        raise ValueError(f"size must not be negative, got {size}")
    tiles.check_origins(origins, values.device)
    num, _, _, height, width = values.shape
    if len(origins) != num:
        raise ValueError(f"there are {num} tiles, but {len(origins)} origins")
    for name, window, side in (("window_y", window_y, height), ("window_x", window_x, width)):
        fits = window.shape == (num, side) and window.dtype == torch.float32
        if not fits or window.device != values.device:
            raise ValueError(
                f"{name} must be ({num}, {side}) float32 on {values.device}, "
                f"got {tuple(window.shape)} {window.dtype} on {window.device}"
            )


def _native(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, size: Size
) -> Tensor:
    num, channels, frames, height, width = values.shape
    out = values.new_empty(1, channels, frames, *size, dtype=torch.float32)
    native.library().tile_blend(
        values=values.data_ptr(),
        origins=origins.data_ptr(),
        window_y=window_y.data_ptr(),
        window_x=window_x.data_ptr(),
        out=out.data_ptr(),
        shape=(num, channels * frames, height, width),
        size=size,
        dtype=native.DTYPE_CODES[values.dtype],
        num_threads=torch.get_num_threads(),
    )
    return out


def _native_unsupported(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, _: Size
) -> list[str]:
    reasons = address_reasons("cpu", values=values, window_y=window_y, window_x=window_x)
    return reasons + tiles.origin_reasons(origins)


def _cuda(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, size: Size
) -> Tensor:
    num, channels, frames, height, width = values.shape
    out = values.new_empty(1, channels, frames, *size, dtype=torch.float32)
    with native.cuda_stream(values.device) as stream:
        native.library().cuda.tile_blend(
            values=values.data_ptr(),
            origins=origins.data_ptr(),
            window_y=window_y.data_ptr(),
            window_x=window_x.data_ptr(),
            out=out.data_ptr(),
            shape=(num, channels * frames, height, width),
            size=size,
            dtype=native.DTYPE_CODES[values.dtype],
            stream=stream,
        )
    return out


def _cuda_unsupported(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, _: Size
) -> list[str]:
    reasons = address_reasons("cuda", values=values, window_y=window_y, window_x=window_x)
    reasons += tiles.origin_reasons(origins)
    if len(values) > MAX_CUDA_TILES:
        reasons.append(f"there are {len(values)} tiles, more than {MAX_CUDA_TILES}")
    return reasons or native.cuda_device_reasons(values.device)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.tile_blend import tile_blend as triton_blend

    return triton_blend


def _triton_unsupported(
    values: Tensor, origins: Tensor, window_y: Tensor, window_x: Tensor, _: Size
) -> list[str]:
    device_type = triton_kernels.device_type()
    reasons = address_reasons(device_type, values=values, window_y=window_y, window_x=window_x)
    return reasons + tiles.origin_reasons(origins)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] = (3, 16, 120, 120),
    tile: Size = (64, 64),
    step: Size = (56, 56),
    moved: int = 0,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Size]:
    channels, frames, height, width = shape
    origins = tiles.grid(device, (height, width), tile, step) - moved
    num = len(origins)
    values = tokens.normal(num, channels, frames, *tile, seed=0, device=device).to(dtype)
    values = values.mT.contiguous().mT if transposed else values
    window_y = tokens.normal(num, tile[0], seed=1, device=device)
    window_x = tokens.normal(num, tile[1], seed=2, device=device)
    return values, origins, window_y, window_x, (height, width)


def _no_tiles(
    dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Size]:
    *tensors, size = _inputs(dtype, device, (2, 1, 5, 6), (3, 3), (2, 2))
    values, origins, window_y, window_x = (t[:0] for t in tensors)
    return values, origins, window_y, window_x, size


OP = Op(
    name="tile_blend",
    formula="sum_n window_y[n, y - y_n] window_x[n, x - x_n] tiles[n, ..., y - y_n, x - x_n]",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("cuda", lambda: _cuda, native.cuda_missing, _cuda_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    # The inputs are rounded before any implementation sees them, and all compute in float32.
    tolerance={
        torch.float32: Tolerance(rtol=1e-6, atol=1e-6),
        torch.bfloat16: Tolerance(rtol=1e-6, atol=1e-6),
    },
    cases=(
        Case("odd sizes", partial(_inputs, shape=(3, 2, 11, 13), tile=(5, 7), step=(2, 3))),
        Case("one frame", partial(_inputs, shape=(4, 1, 9, 8), tile=(4, 4), step=(2, 3))),
        Case("one tile", partial(_inputs, shape=(2, 3, 6, 10), tile=(6, 10))),
        Case("empty", _no_tiles),
        Case("cut off", partial(_inputs, shape=(2, 3, 9, 10), tile=(5, 4), step=(4, 3), moved=3)),
        Case("non-contiguous", partial(_inputs, shape=(3, 2, 8, 8), tile=(4, 4), transposed=True)),
        Case("production", _inputs),  # four tiles of `mini`
    ),
)
