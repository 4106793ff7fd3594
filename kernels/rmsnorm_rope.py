"""RMSNorm of queries or keys, their rotary embedding, and the layout that attention reads.

    out[b, h, n] = rotate(RMSNorm(x[b, n])[h], n)

The norm is over the full width, all heads together; the rotation turns the interleaved pairs
(2 i, 2 i + 1) of each head.  One read and one write of the tokens: 8 bytes a value in float32, 4 in
bfloat16.
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


def rmsnorm_rope(
    x: Tensor,
    weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    eps: float = 1e-6,
    *,
    implementation: str | None = None,
) -> Tensor:
    """`x / rms(x) * weight`, split into heads, each turned by the angles of its token.

    Parameters
    ----------
    x : (B, N, D), float32, bfloat16 or float16
    weight : (D,), floating-point
    cos, sin : (N, D / heads / 2), float32; both None for the norm alone
    heads : divides D
    eps : added to the mean square
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (B, heads, N, D / heads) of the dtype of `x`, in new memory; computed in float32.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(x, weight, cos, sin, heads)
    return OP(x, weight, cos, sin, heads, eps, name=implementation)


def reference(
    x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, heads: int, eps: float
) -> Tensor:
    y = F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
    y = y.unflatten(-1, (heads, -1)).transpose(1, 2)
    if cos is not None and sin is not None:
        y = rotate(y, cos, sin)
    return y.to(x.dtype)


def rotate(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of interleaved pairs of y (B, heads, N, head_dim), float32."""
    even, odd = y.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _check(x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, heads: int) -> None:
    tokens.check_tokens(x)
    tokens.check_width(x, weight=weight)
    if heads < 1 or x.shape[-1] % heads:
        raise ValueError(f"heads must divide the width {x.shape[-1]}, got {heads}")
    if (cos is None) != (sin is None):
        raise ValueError("cos and sin must both be given, or neither")
    if cos is None or sin is None:
        return
    head_dim = x.shape[-1] // heads
    if head_dim % 2:
        raise ValueError(f"a rotation needs heads of even width, got {head_dim}")
    for name, table in (("cos", cos), ("sin", sin)):
        if table.shape != (x.shape[1], head_dim // 2) or table.dtype != torch.float32:
            raise ValueError(
                f"{name} must be float32 ({x.shape[1]}, {head_dim // 2}), "
                f"got {table.dtype} {tuple(table.shape)}"
            )
        if table.device != x.device:
            raise ValueError(f"{name} is on {table.device}, but x is on {x.device}")


def _native(
    x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, heads: int, eps: float
) -> Tensor:
    batch, num, dim = x.shape
    out = x.new_empty(batch, heads, num, dim // heads)
    weight = weight.float()
    native.library().rmsnorm_rope(
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        cos=0 if cos is None else cos.data_ptr(),
        sin=0 if sin is None else sin.data_ptr(),
        out=out.data_ptr(),
        heads=heads,
        eps=eps,
        **tokens.native_arguments(x),
    )
    return out


def _native_unsupported(
    x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, *_: float
) -> list[str]:
    reasons = address_reasons("cpu", x=x, weight=weight, cos=cos, sin=sin)
    return reasons + tokens.native_dtype_reasons(x)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.rmsnorm_rope import rmsnorm_rope as triton_norm

    return triton_norm


def _triton_unsupported(
    x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, *_: float
) -> list[str]:
    return address_reasons(triton_kernels.device_type(), x=x, weight=weight, cos=cos, sin=sin)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
    heads: int = 12,
    rotated: bool = True,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, int, float]:
    batch, num, dim = shape or (1, tokens.production_tokens(device), 1536)
    x = 3 * tokens.normal(batch, num, dim, seed=0, device=device)
    x = (x.mT.contiguous().mT if transposed else x).to(dtype)
    weight = tokens.normal(dim, seed=1, device=device).to(dtype)  # has the model's dtype
    if not rotated:
        return x, weight, None, None, heads, 1e-6
    angles = tokens.normal(num, dim // heads // 2, seed=2, device=device)
    return x, weight, angles.cos(), angles.sin(), heads, 1e-6


OP = Op(
    name="rmsnorm_rope",
    formula="rotate(x / rms(x) * weight) in the layout of attention",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=tokens.TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 7, 90), heads=3)),
        Case("one token", partial(_inputs, shape=(3, 1, 48), heads=2)),
        Case("one head", partial(_inputs, shape=(1, 5, 6), heads=1)),
        Case("empty", partial(_inputs, shape=(2, 0, 32), heads=2)),
        Case("no rotation", partial(_inputs, shape=(2, 7, 90), heads=3, rotated=False)),
        Case("odd heads", partial(_inputs, shape=(2, 5, 70), heads=2, rotated=False)),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90), heads=3, transposed=True)),
        Case("production", _inputs),  # the width of Wan 1.3B
    ),
)
