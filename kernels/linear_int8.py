"""A linear layer in 8-bit arithmetic: quantised weights, and x quantised as it comes.

    y = step * (q_x - zero) . (scale * q_w)^T + b        or the GELU of it, in its tanh form

    step = (max x - min x) / 255      zero = round(-min x / step)      q_x = round(x / step) + zero

with 0 in the range of x, so that it is exact.  The sums are whole numbers of 32 bits.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons


def linear_int8(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    gelu: bool = False,
    *,
    implementation: str | None = None,
) -> Tensor:
    """`x W^T + b` with W = scale * weight, the product being made of whole numbers.

    Parameters
    ----------
    x : (..., I), float32 or bfloat16
    weight : (O, I), int8
    scale : (O, 1), float32
    bias : (O,), float32 or that of `x`, or None
    gelu : apply the Gaussian error linear unit, in its tanh approximation, to the result
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (..., O) of the dtype of `x`, in new memory.

    Raises
    ------
    KernelChoiceError : the implementation that was asked for cannot run
    """
    return OP(x, weight, scale, bias, gelu, name=implementation)


def reference(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    low, high = (
        torch.aminmax(x.float().flatten()) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
    )
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30)
    zero = (-low / step).round()
    q = (x.float() * (1 / step) + zero).clamp(0, 255).round() - zero
    y = F.linear(q, weight.float()) * (step * scale[:, 0])
    y = y if bias is None else y + bias.float()
    return (F.gelu(y, approximate="tanh") if gelu else y).to(x.dtype)


def missing() -> list[str]:
    """Why this machine has no fast products of 8 bits."""
    if reasons := native.missing():
        return reasons
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return ["this version of torch has no 8-bit linear layer of oneDNN"]
    # Without them pairs of products are summed in 16 bits, and overflow.
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    return [] if has_vnni else ["this processor has no 8-bit products (VNNI)"]


def _onednn(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    q = torch.empty(x.shape, dtype=torch.uint8)
    step, zero = native.library().quantize(
        x=x.data_ptr(),
        out=q.data_ptr(),
        num=x.numel(),
        dtype=native.DTYPE_CODES[x.dtype],
        num_threads=torch.get_num_threads(),
    )
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    activation, kind = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.onednn.qlinear_pointwise(
        *(q, step, zero, packed, scale[:, 0], torch.zeros(len(weight), dtype=torch.int32)),
        *(None if bias is None else bias.float(), 1.0, 0, x.dtype, activation, [], kind),
    )


def _unsupported(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, _: bool
) -> list[str]:
    if reasons := address_reasons("cpu", x=x, scale=scale, bias=bias):
        return reasons
    if x.dtype == torch.float16 or weight.dtype != torch.int8:
        return [f"x is {x.dtype} and weight {weight.dtype}, not float32 or bfloat16 and int8"]
    return [] if x.numel() else ["there is nothing to compute"]


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, ...],
    outputs: int,
    gelu: bool = False,
    bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
    generator = torch.Generator().manual_seed(0)
    # A whole number of steps, so that no value lies between two for a rounding to decide.
    x = torch.randint(-100, 156, shape, generator=generator) / 64
    if x.numel():
        x.view(-1)[0], x.view(-1)[-1] = -100 / 64, 155 / 64
    weight = torch.randint(-127, 128, (outputs, shape[-1]), generator=generator).to(torch.int8)
    scale = torch.rand(outputs, 1, generator=generator) / (2000 * shape[-1] ** 0.5)
    b = torch.randn(outputs, generator=generator) if bias else None
    return (
        *(x.to(device, dtype), weight.to(device), scale.to(device)),
        *(None if b is None else b.to(device), gelu),
    )


OP = Op(
    name="linear_int8",
    formula="round(x / step) . W^T * step + b, or the GELU of it",
    reference=reference,
    faster=(Implementation("onednn", lambda: _onednn, missing, _unsupported),),
    tolerance={
        torch.float32: Tolerance(rtol=1.9e-6, atol=1.9e-6),
        torch.bfloat16: Tolerance(rtol=1e-2, atol=1e-2),
    },
    cases=(
        Case("odd sizes", partial(_inputs, shape=(2, 7, 33), outputs=5)),
        Case("odd sizes, activated", partial(_inputs, shape=(2, 7, 33), outputs=5, gelu=True)),
        Case("one token", partial(_inputs, shape=(1, 1, 64), outputs=48, gelu=True)),
        Case("no bias", partial(_inputs, shape=(3, 5, 16), outputs=24, bias=False)),
        Case("empty", partial(_inputs, shape=(0, 5, 16), outputs=24)),
        Case("production", partial(_inputs, shape=(8, 512, 192), outputs=768, gelu=True)),
    ),
)
