"""The residual sum of a branch and the LayerNorm that reads it next, in one pass over memory.

    sum = x + gate * y        normed = LN(sum) * (1 + scale) + shift

or, with an affine norm, LN(sum) * weight + bias.  Two reads and two writes of the tokens: 16 bytes
a value in float32, 8 in bfloat16.
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


def gate_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    affine: bool = False,
    eps: float = 1e-6,
    *,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`x + gate * y`, and the norm of it over the last dimension.

    Parameters
    ----------
    x : (B, N, D), float32, bfloat16 or float16; the residual stream
    y : like `x`; what a branch adds to it
    gate : (B, D), or (1, D) for all samples; None: 1
    scale, shift : like `gate`, of `LN * (1 + scale) + shift`; with `affine` the weight and bias
        (D,) of `LN * scale + shift`
    affine : see there
    eps : added to the variance
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    The sum and the normed sum, (B, N, D) of the dtype of `x`, in new memory; computed in float32,
    the norm from the sum before it is rounded.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(x, y, gate, scale, shift, affine)
    return OP(x, y, gate, scale, shift, affine, eps, name=implementation)


def reference(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    affine: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    total, y = x.float(), y.float()
    total = total + y if gate is None else torch.addcmul(total, y, gate[:, None].float())
    if affine:
        normed = F.layer_norm(total, x.shape[-1:], scale.float(), shift.float(), eps)
    else:
        normed = F.layer_norm(total, x.shape[-1:], eps=eps)
        normed = torch.addcmul(shift[:, None], normed, 1 + scale[:, None])
    return total.to(x.dtype), normed.to(x.dtype)


def _check(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, affine: bool
) -> None:
    tokens.check_tokens(x)
    if (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"y is {y.dtype} {tuple(y.shape)} on {y.device}, "
            f"but x is {x.dtype} {tuple(x.shape)} on {x.device}"
        )
    tokens.check_samples(x, gate=gate)
    if affine:
        tokens.check_width(x, scale=scale, shift=shift)
    else:
        tokens.check_samples(x, scale=scale, shift=shift)


def _native(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    affine: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    total, normed = torch.empty_like(x), torch.empty_like(x)
    gate = None if gate is None else gate.float()
    scale, shift = scale.float(), shift.float()
    native.library().gate_residual_norm(
        x=x.data_ptr(),
        y=y.data_ptr(),
        gate=tokens.native_rows(gate),
        scale=tokens.native_rows(scale),
        shift=tokens.native_rows(shift),
        affine=affine,
        sum=total.data_ptr(),
        normed=normed.data_ptr(),
        eps=eps,
        **tokens.native_arguments(x),
    )
    return total, normed


def _native_unsupported(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *_: object
) -> list[str]:
    rows = {"gate": gate, "scale": scale, "shift": shift}
    return address_reasons("cpu", rows, x=x, y=y) + tokens.native_dtype_reasons(x)


def _load_triton() -> Callable[..., tuple[Tensor, Tensor]]:
    from .triton.gate_residual_norm import gate_residual_norm as triton_norm

    return triton_norm


def _triton_unsupported(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *_: object
) -> list[str]:
    rows = {"gate": gate, "scale": scale, "shift": shift}
    return address_reasons(triton_kernels.device_type(), rows, x=x, y=y)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
    samples: int | None = None,
    gated: bool = True,
    affine: bool = False,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, bool, float]:
    batch, num, dim = shape or (1, tokens.production_tokens(device), 1536)
    x = tokens.normal(batch, num, dim, seed=0, device=device) + 0.3
    y = tokens.normal(batch, num, dim, seed=1, device=device)
    if transposed:
        x, y = x.mT.contiguous().mT, y.mT.contiguous().mT
    # Rows of a wider table, as the modulation of a block is.
    table = tokens.normal(samples or batch, 6, dim, seed=2, device=device)
    scale, shift, gate = table[:, 1], table[:, 0], table[:, 2]
    if affine:
        scale, shift = scale[0].to(dtype), shift[0].to(dtype)  # weights have the model's dtype
    return x.to(dtype), y.to(dtype), gate if gated else None, scale, shift, affine, 1e-6


OP = Op(
    name="gate_residual_norm",
    formula="x + gate * y, LN(x + gate * y) * (1 + scale) + shift",
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
        Case("shared modulation", partial(_inputs, shape=(3, 5, 64), samples=1)),
        Case("affine", partial(_inputs, shape=(2, 7, 90), affine=True)),
        Case("no gate", partial(_inputs, shape=(2, 7, 90), gated=False)),
        Case("no gate, affine", partial(_inputs, shape=(2, 5, 64), gated=False, affine=True)),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90), transposed=True)),
        Case("production", _inputs),  # the width of Wan 1.3B
    ),
)
