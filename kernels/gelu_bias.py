"""GELU of a product with its bias, in one pass over memory: between the layers of a feed-forward.

    gelu_tanh(x + bias)

One read and one write of the values: 8 bytes each in float32, 4 in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, tokens
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, address_reasons


def gelu_bias(x: Tensor, bias: Tensor, *, implementation: str | None = None) -> Tensor:
    """`gelu_tanh(x + bias)`, the GELU in its tanh form.

    Parameters
    ----------
    x : (..., D), float32, bfloat16 or float16
    bias : (D,), floating-point
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor of the shape and dtype of `x`, in new memory; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    tokens.check_rows(x, bias=bias)
    return OP(x, bias, name=implementation)


def reference(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x.float() + bias.float(), approximate="tanh").to(x.dtype)


def _native(x: Tensor, bias: Tensor) -> Tensor:
    out = native.empty(*x.shape, dtype=x.dtype)
    bias = bias.float()
    native.library().gelu_bias(
        x=x.data_ptr(),
        bias=bias.data_ptr(),
        out=out.data_ptr(),
        **tokens.native_rows_arguments(x),
    )
    return out


def _native_unsupported(x: Tensor, bias: Tensor) -> list[str]:
    return address_reasons("cpu", x=x, bias=bias) + tokens.native_dtype_reasons(x)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.gelu_bias import gelu_bias as triton_gelu

    return triton_gelu


def _triton_unsupported(x: Tensor, bias: Tensor) -> list[str]:
    return address_reasons(triton_kernels.device_type(), x=x, bias=bias)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, ...] | None = None,
    transposed: bool = False,
) -> tuple[Tensor, Tensor]:
    shape = shape or (1, tokens.production_tokens(device) // 4, 8960)
    x = 2 * tokens.normal(*shape, seed=0, device=device)
    x = (x.mT.contiguous().mT if transposed else x).to(dtype)
    return x, tokens.normal(shape[-1], seed=1, device=device)


OP = Op(
    name="gelu_bias",
    formula="gelu_tanh(x + bias)",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=tokens.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 7, 90))),
        Case("one token", partial(_inputs, shape=(3, 1, 48))),
        Case("empty", partial(_inputs, shape=(2, 0, 32))),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90), transposed=True)),
        Case("production", _inputs),  # the feed-forward width of Wan 1.3B
    ),
)
