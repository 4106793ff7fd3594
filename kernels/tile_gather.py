"""The tiles of a state, cut out and laid one after the other, the whole of it `repeat` times.

    out[r N + n, c, t, y, x] = state[0, c, t, y_n + y, x_n + x]

One read and `repeat` writes of the tiles' values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native, tiles, tokens
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons

Size = tuple[int, int]


def tile_gather(
    x: Tensor, origins: Tensor, size: Size, repeat: int = 1, *, implementation: str | None = None
) -> Tensor:
    """The tiles of `size` (height, width) of x that begin at `origins`.

    Parameters
    ----------
    x : (1, C, T, H, W), float32
    origins : (N, 2) int32 on the device of `x`, the first row and column of each tile, all of
        which lies within x; on a GPU that is not checked, as reading it would wait for the device
    size : (h, w)
    repeat : how many times the tiles are wanted, 1 or more
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (repeat * N, C, T, h, w) float32, in new memory.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit, or a tile is not within x
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(x, origins, size, repeat)
    return OP(x, origins, size, repeat, name=implementation)


def reference(x: Tensor, origins: Tensor, size: Size, repeat: int) -> Tensor:
    height, width = size
    cut = [x[..., y : y + height, x0 : x0 + width] for y, x0 in origins.tolist()]
    return torch.cat(cut * repeat) if cut else x.new_empty(0, *x.shape[1:3], *size)


def _check(x: Tensor, origins: Tensor, size: Size, repeat: int) -> None:
    if x.ndim != 5 or x.shape[0] != 1 or x.dtype != torch.float32:
        raise ValueError(f"x must be float32 (1, C, T, H, W), got {x.dtype} {tuple(x.shape)}")
    if min(size) < 0 or repeat < 1:
        raise ValueError(f"size {size} must not be negative, and repeat {repeat} at least 1")
    tiles.check_origins(origins, x.device)
    if origins.device.type != "cpu":
        return
    for y, x0 in origins.tolist():
        if y < 0 or x0 < 0 or y + size[0] > x.shape[3] or x0 + size[1] > x.shape[4]:
            raise ValueError(f"the tile of {size} at {(y, x0)} is not within {tuple(x.shape)}")


def _native(x: Tensor, origins: Tensor, size: Size, repeat: int) -> Tensor:
    _, channels, frames, height, width = x.shape
    num = len(origins)
    out = x.new_empty(repeat * num, channels, frames, *size)
    native.library().tile_gather(
        x=x.data_ptr(),
        origins=origins.data_ptr(),
        out=out.data_ptr(),
        shape=(num, channels * frames, *size),
        size=(height, width),
        repeat=repeat,
        num_threads=torch.get_num_threads(),
    )
    return out


def _native_unsupported(x: Tensor, origins: Tensor, *_: object) -> list[str]:
    return address_reasons("cpu", x=x) + tiles.origin_reasons(origins)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.tile_gather import tile_gather as triton_gather

    return triton_gather


def _triton_unsupported(x: Tensor, origins: Tensor, *_: object) -> list[str]:
    reasons = address_reasons(triton_kernels.device_type(), x=x)
    return reasons + tiles.origin_reasons(origins)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] = (3, 16, 120, 120),
    tile: Size = (64, 64),
    step: Size = (56, 56),
    repeat: int = 2,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Size, int]:
    x = tokens.normal(1, *shape, seed=0, device=device).to(dtype)
    x = x.mT.contiguous().mT if transposed else x
    return x, tiles.grid(device, (shape[2], shape[3]), tile, step), tile, repeat


def _no_tiles(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Size, int]:
    x, origins, tile, repeat = _inputs(dtype, device, (2, 1, 5, 6), (3, 3), (2, 2))
    return x, origins[:0], tile, repeat


OP = Op(
    name="tile_gather",
    formula="out[r N + n, :, :, y, x] = state[0, :, :, y_n + y, x_n + x]",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance={torch.float32: Tolerance(rtol=0, atol=0)},  # nothing is computed
    cases=(
        Case("odd sizes", partial(_inputs, shape=(3, 2, 11, 13), tile=(5, 7), step=(4, 3))),
        Case("one frame", partial(_inputs, shape=(4, 1, 9, 8), tile=(4, 4), step=(2, 3), repeat=1)),
        Case("one tile", partial(_inputs, shape=(2, 3, 6, 10), tile=(6, 10), repeat=3)),
        Case("empty", _no_tiles),
        Case("non-contiguous", partial(_inputs, shape=(3, 2, 8, 8), tile=(4, 4), transposed=True)),
        Case("production", _inputs),  # four tiles of `mini`, for both branches
    ),
)
