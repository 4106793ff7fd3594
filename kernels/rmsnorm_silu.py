"""RMSNorm over the channels and SiLU, in one pass over memory: the entry of a codec's block.

    silu(x / rms(x) * gamma),    rms(x) = sqrt(mean(x^2) + eps)

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

EPS = 1e-24  # of the Wan VAE, whose norm is x / |x| * sqrt(C) * gamma


def rmsnorm_silu(
    x: Tensor,
    gamma: Tensor,
    eps: float = EPS,
    silu: bool = True,
    *,
    implementation: str | None = None,
) -> Tensor:
    """`silu(rms_norm(x) * gamma)`, the norm being over the last dimension.

    Parameters
    ----------
    x : (..., C), float32, bfloat16 or float16
    gamma : (C,), floating-point
    eps : added to the mean of squares
    silu : False leaves the norm alone
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor of the shape and dtype of `x`, in new memory; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    tokens.check_rows(x, gamma=gamma)
    return OP(x, gamma, eps, silu, name=implementation)


def reference(x: Tensor, gamma: Tensor, eps: float, silu: bool) -> Tensor:
    y = F.rms_norm(x.float(), x.shape[-1:], gamma.float(), eps=eps)
    return (F.silu(y) if silu else y).to(x.dtype)


def _native(x: Tensor, gamma: Tensor, eps: float, silu: bool) -> Tensor:
    out = native.empty(*x.shape, dtype=x.dtype)
    gamma = gamma.float()
    native.library().rmsnorm_silu(
        x=x.data_ptr(),
        gamma=gamma.data_ptr(),
        out=out.data_ptr(),
        eps=eps,
        silu=silu,
        **tokens.native_rows_arguments(x),
    )
    return out


def _native_unsupported(x: Tensor, gamma: Tensor, *_: float) -> list[str]:
    return address_reasons("cpu", x=x, gamma=gamma) + tokens.native_dtype_reasons(x)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.rmsnorm_silu import rmsnorm_silu as triton_norm

    return triton_norm


def _triton_unsupported(x: Tensor, gamma: Tensor, *_: float) -> list[str]:
    return address_reasons(triton_kernels.device_type(), x=x, gamma=gamma)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, ...] | None = None,
    silu: bool = True,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, float, bool]:
    shape = shape or (4, 480, 832, 96) if device.type == "cuda" else shape or (4, 64, 96, 96)
    x = tokens.normal(*shape, seed=0, device=device)
    x = (x.mT.contiguous().mT if transposed else x).to(dtype)
    return x, 1 + 0.1 * tokens.normal(shape[-1], seed=1, device=device), EPS, silu


OP = Op(
    name="rmsnorm_silu",
    formula="silu(x / sqrt(mean(x^2) + eps) * gamma)",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=tokens.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 7, 90))),
        Case("one token", partial(_inputs, shape=(1, 1, 1, 48))),
        Case("empty", partial(_inputs, shape=(2, 0, 32))),
        Case("the norm alone", partial(_inputs, shape=(3, 5, 64), silu=False)),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90), transposed=True)),
        Case("production", _inputs),  # the widest level of the published VAE
    ),
)
