"""A linear layer, with the activation of a feed-forward layer in the same pass.

    y = x W^T + b        or        y = gelu(x W^T + b),   gelu in its tanh form

It is the library that computes the product, and only which library is chosen here.  On a CPU in
fp32 PyTorch takes MKL, which on processors of AMD leaves a tenth to a fifth of the peak unused;
oneDNN comes with the same build of PyTorch, does not, and applies the activation while a part of
the result is still in the cache (bench/results/kernels.json).  On CUDA cuBLASLt does the latter.
Where neither can, the activation is at least one pass with the bias.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import Case, Implementation, Op, Tolerance, address_reasons
from .gelu_bias import OP as GELU_BIAS
from .gelu_bias import gelu_bias


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool = False,
    *,
    implementation: str | None = None,
) -> Tensor:
    """`x W^T + b`, with the activation where `gelu` says so.

    Parameters
    ----------
    x : (..., I), any float dtype
    weight : (O, I), dtype of `x`
    bias : (O,), dtype of `x`, or None
    gelu : apply the Gaussian error linear unit, in its tanh approximation, to the result
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (..., O) of the dtype of `x`, in new memory.

    Raises
    ------
    KernelChoiceError : the implementation that was asked for cannot run
    RuntimeError : shapes or dtypes do not fit
    """
    return OP(x, weight, bias, gelu, name=implementation)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    y = F.linear(x, weight, bias)
    return F.gelu(y, approximate="tanh") if gelu else y


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    activation, kind = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], kind)


def _onednn_missing() -> list[str]:
    if not torch.backends.mkldnn.is_available():
        return ["this build of torch has no oneDNN"]
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ["this version of torch has no linear layer of oneDNN with an activation"]
    return []


def _onednn_unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> list[str]:
    if reasons := address_reasons("cpu", x=x, weight=weight, bias=bias):
        return reasons
    dtypes = {t.dtype for t in (x, weight, bias) if t is not None}
    if dtypes == {torch.bfloat16} and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ["this processor has no products in bfloat16"]
    if dtypes != {torch.float32} and not (dtypes == {torch.bfloat16} and gelu):
        return ["PyTorch itself takes oneDNN for what is not float32"]
    return [] if x.numel() and weight.numel() else ["there is nothing to compute"]


def _cublaslt(x: Tensor, weight: Tensor, bias: Tensor, _: bool) -> Tensor:
    y = torch._addmm_activation(bias, x.flatten(0, -2), weight.T, use_gelu=True)
    return y.unflatten(0, x.shape[:-1])


def _cublaslt_missing() -> list[str]:
    return [] if torch.cuda.is_available() else ["there is no CUDA device"]


def _cublaslt_unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> list[str]:
    if not gelu:
        return ["without an activation PyTorch calls the same product"]
    if bias is None:
        return ["the activation is joined to a bias, and there is none"]
    return address_reasons("cuda", x=x, weight=weight, bias=bias)


def _epilogue(x: Tensor, weight: Tensor, bias: Tensor, _: bool) -> Tensor:
    return gelu_bias(F.linear(x, weight), bias)


def _epilogue_unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> list[str]:
    if not gelu or bias is None:
        return ["it joins an activation to a bias"]
    reasons = address_reasons(x.device.type, x=x, weight=weight, bias=bias)
    if not reasons and GELU_BIAS.choose(x, bias).name == "reference":
        reasons = ["nothing here has both in one pass"]
    return reasons


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, ...],
    outputs: int,
    gelu: bool = False,
    bias: bool = True,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(outputs, shape[-1], generator=generator) / (4 * shape[-1] ** 0.5)
    b = torch.randn(outputs, generator=generator) if bias else None
    x, weight = x.to(device, dtype), weight.to(device, dtype)
    if transposed:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    return x, weight, None if b is None else b.to(device, dtype), gelu


def _case(name: str, *shape_and_outputs: int, **settings: Any) -> Case:
    *shape, outputs = shape_and_outputs
    return Case(name, partial(_inputs, shape=tuple(shape), outputs=outputs, **settings))


OP = Op(
    name="linear",
    formula="x W^T + b, or the GELU of it",
    reference=reference,
    faster=(
        Implementation("onednn", lambda: _onednn, _onednn_missing, _onednn_unsupported),
        Implementation("cublaslt", lambda: _cublaslt, _cublaslt_missing, _cublaslt_unsupported),
        Implementation("epilogue", lambda: _epilogue, unsupported=_epilogue_unsupported),
    ),
    tolerance={
        torch.float32: Tolerance(rtol=1.9e-6, atol=1.9e-6),
        torch.bfloat16: Tolerance(rtol=1e-2, atol=1e-2),
    },
    cases=(
        _case("odd sizes", 2, 7, 33, 5),
        _case("odd sizes, activated", 2, 7, 33, 5, gelu=True),
        _case("one token", 1, 1, 64, 48, gelu=True),
        _case("no bias", 3, 5, 16, 24, bias=False),
        _case("empty", 0, 5, 16, 24),
        _case("non-contiguous", 4, 6, 16, 24, gelu=True, transposed=True),
        _case("production", 8, 512, 192, 768, gelu=True),
    ),
)
