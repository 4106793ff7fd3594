"""LayerNorm with the scale and shift of each sample (adaLN), in one pass over memory.

    LN(x) * (1 + scale) + shift

One read and one write of the tokens: 8 bytes a value in float32, 4 in bfloat16.
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


def layernorm_modulate(
    x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-6, *, implementation: str | None = None
) -> Tensor:
    """`LN(x) * (1 + scale) + shift`, the norm being over the last dimension and without weights.

    Parameters
    ----------
    x : (B, N, D), float32, bfloat16 or float16
    scale, shift : (B, D), or (1, D) for all samples; floating-point
    eps : added to the variance
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (B, N, D) of the dtype of `x`, in new memory; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    tokens.check_tokens(x)
    tokens.check_samples(x, scale=scale, shift=shift)
    return OP(x, scale, shift, eps, name=implementation)


def reference(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    y = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return torch.addcmul(shift[:, None], y, 1 + scale[:, None]).to(x.dtype)


def _native(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(x)
    scale, shift = scale.float(), shift.float()
    native.library().layernorm_modulate(
        x=x.data_ptr(),
        scale=tokens.native_rows(scale),
        shift=tokens.native_rows(shift),
        out=out.data_ptr(),
        eps=eps,
        **tokens.native_arguments(x),
    )
    return out


def _native_unsupported(x: Tensor, scale: Tensor, shift: Tensor, _: float) -> list[str]:
    reasons = address_reasons("cpu", {"scale": scale, "shift": shift}, x=x)
    return reasons + tokens.native_dtype_reasons(x)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.layernorm_modulate import layernorm_modulate as triton_norm

    return triton_norm


def _triton_unsupported(x: Tensor, scale: Tensor, shift: Tensor, _: float) -> list[str]:
    device_type = triton_kernels.device_type()
    return address_reasons(device_type, {"scale": scale, "shift": shift}, x=x)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
    samples: int | None = None,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor, float]:
    batch, num, dim = shape or (1, tokens.production_tokens(device), 1536)
    x = tokens.normal(batch, num, dim, seed=0, device=device) + 0.3
    x = (x.mT.contiguous().mT if transposed else x).to(dtype)
    # Rows of a wider table, as the modulation of a block is.
    table = tokens.normal(samples or batch, 6, dim, seed=1, device=device)
    return x, table[:, 1], table[:, 0], 1e-6


OP = Op(
    name="layernorm_modulate",
    formula="LN(x) * (1 + scale) + shift",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=tokens.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 7, 90))),
        Case("one token", partial(_inputs, shape=(3, 1, 48))),
        Case("one value", partial(_inputs, shape=(1, 1, 1))),
        Case("empty", partial(_inputs, shape=(2, 0, 32))),
        Case("shared modulation", partial(_inputs, shape=(3, 5, 64), samples=1)),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90), transposed=True)),
        Case("production", _inputs),  # the width of Wan 1.3B
    ),
)
