"""One Euler step of the guided velocity, in one pass over memory.

    x' = x + dt * (w_cond * v_cond + w_uncond * v_uncond),    (w_cond, w_uncond, dt) = table[row]

In velocity space w_cond = alpha and w_uncond = 1 - alpha; in x_0 space w_uncond = (1 - alpha) * tau
/ t, so that both spaces are this one op.  The weights lie on the device beside x and the host reads
none of them: with a row that lies there too, one recorded launch serves every step of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import native
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons


def dtg_step(
    x: Tensor,
    v_cond: Tensor,
    v_uncond: Tensor | None,
    table: Tensor,
    row: int | Tensor,
    *,
    implementation: str | None = None,
) -> Tensor:
    """`x + dt * (w_cond * v_cond + w_uncond * v_uncond)` with the weights of one row of `table`.

    Parameters
    ----------
    x : any shape, float32; the state at time t
    v_cond : shape of `x`, float32, bfloat16 or float16; the conditional velocity
    v_uncond : like `v_cond`; the velocity of the lookahead, or None: the term is left out and
        `w_uncond` is not read
    table : (R, 3) float32, contiguous, on the device of `x`; rows of w_cond, w_uncond and dt, the
        (negative) difference of times t' - t
    row : which of them: an int, or one int64 on the device of `x`, read when the kernel runs and
        then not checked against R on a GPU
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor of the shape of `x`, float32, in new memory; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes, devices or the row do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(x, v_cond, v_uncond)
    _check_row(x, table, row)
    return OP(x, v_cond, v_uncond, table, row, name=implementation)


def reference(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> Tensor:
    # An index that is a tensor of one value would be read by the host.
    weights = table.index_select(0, row.view(1))[0] if isinstance(row, Tensor) else table[row]
    w_cond, w_uncond, dt = weights.unbind()
    v = w_cond * v_cond.float()
    if v_uncond is not None:
        v = v + w_uncond * v_uncond.float()
    return x + dt * v


def _check(x: Tensor, v_cond: Tensor, v_uncond: Tensor | None) -> None:
    if x.dtype != torch.float32:
        raise ValueError(f"x must be float32, got {x.dtype}")
    if not v_cond.is_floating_point():
        raise ValueError(f"v_cond must be a floating-point tensor, got {v_cond.dtype}")
    if v_cond.shape != x.shape or v_cond.device != x.device:
        raise ValueError(f"v_cond is {_kind(v_cond)}, but x is {_kind(x)}")
    if v_uncond is not None and (v_uncond.dtype, _kind(v_uncond)) != (v_cond.dtype, _kind(v_cond)):
        raise ValueError(
            f"v_uncond is {v_uncond.dtype} {_kind(v_uncond)}, "
            f"but v_cond is {v_cond.dtype} {_kind(v_cond)}"
        )


def _check_row(x: Tensor, table: Tensor, row: int | Tensor) -> None:
    is_table = table.ndim == 2 and table.shape[1] == 3 and table.is_contiguous()
    if not is_table or table.dtype != torch.float32 or table.device != x.device:
        raise ValueError(
            f"table must be (R, 3) float32, contiguous, on {x.device}, "
            f"got {table.dtype} {_kind(table)}"
        )
    if isinstance(row, Tensor):
        if row.dtype != torch.int64 or row.numel() != 1 or row.device != x.device:
            raise ValueError(f"row must be one int64 on {x.device}, got {row.dtype} {_kind(row)}")
    elif not 0 <= row < len(table):
        raise ValueError(f"row must be in 0 .. {len(table) - 1}, got {row}")


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} on {tensor.device}"


def _native(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> Tensor:
    out = torch.empty_like(x)
    native.library().dtg_step(
        x=x.data_ptr(),
        v_cond=v_cond.data_ptr(),
        v_uncond=0 if v_uncond is None else v_uncond.data_ptr(),
        weights=table[int(row)].data_ptr(),
        out=out.data_ptr(),
        num=x.numel(),
        v_dtype=native.DTYPE_CODES[v_cond.dtype],
        num_threads=torch.get_num_threads(),
    )
    return out


def _native_unsupported(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> list[str]:
    return address_reasons("cpu", x=x, v_cond=v_cond, v_uncond=v_uncond, table=table)


def _cuda(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> Tensor:
    out = torch.empty_like(x)
    # The kernel reads a row that is a tensor; the address of the first one is enough for a number.
    rows, index = (table, row.data_ptr()) if isinstance(row, Tensor) else (table[row], 0)
    with native.cuda_stream(x.device) as stream:
        native.library().cuda.dtg_step(
            x=x.data_ptr(),
            v_cond=v_cond.data_ptr(),
            v_uncond=0 if v_uncond is None else v_uncond.data_ptr(),
            table=rows.data_ptr(),
            row=index,
            out=out.data_ptr(),
            num=x.numel(),
            v_dtype=native.DTYPE_CODES[v_cond.dtype],
            stream=stream,
        )
    return out


def _cuda_unsupported(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> list[str]:
    reasons = address_reasons("cuda", x=x, v_cond=v_cond, v_uncond=v_uncond, table=table)
    return reasons or native.cuda_device_reasons(x.device)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.dtg_step import dtg_step as triton_step

    return triton_step


def _triton_unsupported(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, table: Tensor, row: int | Tensor
) -> list[str]:
    device = triton_kernels.device_type()
    return address_reasons(device, x=x, v_cond=v_cond, v_uncond=v_uncond, table=table)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, ...],
    elided: bool = False,
    transposed: bool = False,
    row_on_device: bool = False,
) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    x, v_cond, v_uncond = torch.randn(3, *shape, generator=generator).to(device)
    v_cond, v_uncond = v_cond.to(dtype), v_uncond.to(dtype)
    if transposed:
        x, v_cond, v_uncond = x.mT, v_cond.mT, v_uncond.mT
    rows = [(2.9, -1.9, -0.05), (2.3, -1.3, -0.07), (1.0, 9.0, -0.09)]
    row = 2 if elided else 1
    return (
        *(x, v_cond, None if elided else v_uncond, torch.tensor(rows, device=device)),
        torch.tensor(row, device=device) if row_on_device else row,
    )


OP = Op(
    name="dtg_step",
    formula="x + dt * (w_cond * v_cond + w_uncond * v_uncond), weights = table[row]",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        # Before Triton's: a launch costs the host less, and the first one compiles nothing.
        Implementation("cuda", lambda: _cuda, native.cuda_missing, _cuda_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    # The inputs are rounded before any implementation sees them and all compute in float32: what is
    # left is the order of three roundings, whatever the dtype of the velocities.
    tolerance={
        torch.float32: Tolerance(rtol=1e-6, atol=1e-6),
        torch.bfloat16: Tolerance(rtol=1e-6, atol=1e-6),
        torch.float16: Tolerance(rtol=1e-6, atol=1e-6),
    },
    cases=(
        Case("odd sizes", partial(_inputs, shape=(1, 3, 5, 7, 13))),
        Case("one frame", partial(_inputs, shape=(2, 16, 1, 9, 11))),
        Case("one value", partial(_inputs, shape=(1,))),
        Case("empty", partial(_inputs, shape=(0, 3, 4))),
        Case("elided", partial(_inputs, shape=(1, 3, 5, 7, 13), elided=True)),
        Case("row on the device", partial(_inputs, shape=(1, 3, 5, 7, 13), row_on_device=True)),
        Case("non-contiguous", partial(_inputs, shape=(1, 3, 5, 7, 13), transposed=True)),
        Case("production", partial(_inputs, shape=(1, 16, 21, 60, 104))),  # 81 frames of 832 x 480
    ),
)
