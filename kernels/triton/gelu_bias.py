"""Triton version of kernels/gelu_bias.py: one read and one write a value."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import interpreted


@triton.jit
def _gelu_bias_kernel(x_ptr, bias_ptr, out_ptr, num, DIM: tl.constexpr, BLOCK: tl.constexpr):
    # int64: a long clip has more than 2^31 values.
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < num
    x = tl.load(x_ptr + i, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + i % DIM, mask=inside, other=0.0).to(tl.float32)
    # tanh(u) = 2 sigmoid(2 u) - 1
    y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    tl.store(out_ptr + i, y.to(out_ptr.dtype.element_ty), mask=inside)


def gelu_bias(x: Tensor, bias: Tensor) -> Tensor:
    out = x.new_empty(x.shape)
    num = x.numel()
    if num == 0:
        return out
    block = 131072 if interpreted() else 1024  # a program costs the interpreter milliseconds
    _gelu_bias_kernel[(triton.cdiv(num, block),)](x, bias, out, num, DIM=x.shape[-1], BLOCK=block)
    return out
