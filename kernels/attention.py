"""Attention without a mask, and the choice among the libraries that compute it.

    softmax(q k^T / sqrt(head_dim)) v

Order of preference, by what is published; `--attention` and DTG_KERNELS overrule it:

native    on a CPU: own code (csrc/attention.cpp), in fp32 a fifth faster than SDPA, in bf16, where
          the processor multiplies it, nearly twice as fast (bench/results/kernels.json)
flash3    the fastest on Hopper (sm_90), and only there: 650 TFLOP/s in bf16 with heads of 128 and
          long sequences, where cuDNN has 595 and flash2 370 (Shah et al., "FlashAttention-3", 2024)
cudnn     the second on Hopper; the first on Blackwell for data centres (sm_100), whose matrix units
          the others do not use.  Elsewhere it measured from equal (Ada) to a fifth slower (A100)
          than flash2, so it has to be asked for there.
flash2    the fastest on Ampere, Ada and sm_120
xformers  the same kernels in an older state, with kernels of its own for what those leave out
sdpa      PyTorch's own choice, which has flash2 in it: everywhere, in every precision
sage      8-bit products: only where it is asked for, as its result is another one

Layouts: q and k come as (B, heads, N, head_dim) from `rmsnorm_rope`, v is a view of a projection.
What a library wants otherwise is a view as well, so that nothing is copied on the way in.  The
flash-attn libraries and xformers write (B, N, heads, head_dim), which the output projection reads
as it is, and so does the native one; SDPA and cuDNN write the layout of q, so there a copy merges
the heads of the result.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention_libraries as libraries
from . import native, tokens
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons


def attention(q: Tensor, k: Tensor, v: Tensor, *, implementation: str | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v, of every query over all keys.

    Parameters
    ----------
    q : (B, heads, N, head_dim), float32, bfloat16 or float16
    k, v : (B, heads, L, head_dim), L >= 1, of the dtype of `q`
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (B, heads, N, head_dim) of the dtype of `q`, in new memory, not always contiguous.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(q, k, v)
    return OP(q, k, v, name=implementation)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # One operator, because exporters and compilers know it; the formula is in its test.
    return F.scaled_dot_product_attention(q, k, v)


def _native(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, num, head_dim = q.shape
    out = q.new_empty(batch, num, heads, head_dim)
    native.library().attention(
        **{name: _operand(x) for name, x in (("q", q), ("k", k), ("v", v))},
        out=out.data_ptr(),
        shape=(batch, heads, num, k.shape[2], head_dim),
        scale=head_dim**-0.5,
        dtype=native.DTYPE_CODES[q.dtype],
        num_threads=torch.get_num_threads(),
    )
    return out.transpose(1, 2)


def _operand(x: Tensor) -> tuple[int, int, int, int]:
    return x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)


def _native_unsupported(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    if reasons := address_reasons("cpu", rows={"q": q, "k": k, "v": v}):
        return reasons
    if not native.library().attention_supported(native.DTYPE_CODES[q.dtype]):
        return [f"this processor lacks the instructions for {q.dtype}"]
    if q.shape[-1] % 16:
        return [f"head_dim is {q.shape[-1]}, not a multiple of 16"]
    return [] if q.numel() else ["there is nothing to compute"]


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.ndim != 4 or q.dtype not in TOLERANCE:
        raise ValueError(
            "q must be (B, heads, N, head_dim) in float32, bfloat16 or float16, "
            f"got {q.dtype} {tuple(q.shape)}"
        )
    batch, heads, _, head_dim = q.shape
    length = k.shape[2] if k.ndim == 4 else 0
    for name, tensor in (("k", k), ("v", v)):
        fits = tensor.shape == (batch, heads, length, head_dim) and length > 0
        if not fits or tensor.dtype != q.dtype or tensor.device != q.device:
            raise ValueError(
                f"{name} must be ({batch}, {heads}, L, {head_dim}) with one L >= 1 for k and v, "
                f"{q.dtype} on {q.device}, got {tuple(tensor.shape)}, {tensor.dtype} on "
                f"{tensor.device}"
            )


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] | None = None,
    length: int | None = None,
    layout: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of `shape`, the latter two with `length` tokens."""
    batch, heads, num, head_dim = shape or _production(device)
    made = []
    for seed, count in enumerate((num, length or num, length or num)):
        x = tokens.normal(batch, heads, count, head_dim, seed=seed, device=device).to(dtype)
        if layout == "columns":
            x = x.mT.contiguous().mT
        elif layout == "interleaved":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        made.append(x)
    return made[0], made[1], made[2]


def _production(device: torch.device) -> tuple[int, int, int, int]:
    """Self-attention of Wan 1.3B over a clip; on a CPU that of a Wan of width 512 over a tile."""
    if device.type == "cuda":
        return 1, 12, tokens.production_tokens(device), 128
    return 1, 8, 1920, 64


# Weights of the softmax are rounded to the dtype before they meet v; the sums are in float32.
TOLERANCE = {
    torch.float32: Tolerance(rtol=1.5e-6, atol=1.5e-6),
    torch.bfloat16: Tolerance(rtol=2**-6, atol=2**-7),
    torch.float16: Tolerance(rtol=2**-9, atol=2**-10),
}

OP = Op(
    name="attention",
    formula="softmax(q k^T / sqrt(head_dim)) v",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        libraries.FLASH3,
        libraries.CUDNN,
        libraries.FLASH2,
        libraries.XFORMERS,
        Implementation("sdpa", lambda: reference),  # by the name that users know
        libraries.SAGE,
    ),
    tolerance=TOLERANCE,
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 3, 7, 10))),
        Case("one token", partial(_inputs, shape=(3, 2, 1, 24))),
        Case("one key", partial(_inputs, shape=(2, 2, 5, 8), length=1)),
        Case("empty", partial(_inputs, shape=(2, 2, 0, 32), length=4)),
        Case("cross", partial(_inputs, shape=(2, 2, 65, 32), length=33)),
        Case("non-contiguous", partial(_inputs, shape=(2, 3, 7, 10), layout="columns")),
        Case("heads inside", partial(_inputs, shape=(2, 3, 40, 16), layout="interleaved")),
        Case("production", _inputs),
    ),
)
