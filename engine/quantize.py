"""Quantisation: matrices in one byte a value, computed with in the dtype of x or in 8 bits.

Every output channel has a scale of its own, so that one large row does not cost the others their
precision:

    q[o, i] = round(w[o, i] / s[o])        s[o] = max_i |w[o, i]| / limit

with round to whole numbers for int8, to e4m3 for fp8.  "int8-dynamic" quantises x as well, as it
comes, and multiplies whole numbers: twice to three times as fast on a CPU that has them, at an
error of one hundredth a layer (bench/results/runtimes_mini.json).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..kernels import linear, linear_int8
from ..kernels.linear_int8 import missing
from .errors import ConfigError, EngineError

ROWS = 256  # that are quantised at a time
# Kind -> dtype and the largest magnitude that is used of it.
DYNAMIC = "int8-dynamic"
KINDS = {
    "int8": (torch.int8, 127.0),
    DYNAMIC: (torch.int8, 127.0),
    "fp8": (torch.float8_e4m3fn, 448.0),
}


def check_kind(kind: str, device: torch.device) -> None:
    """That matrices held as `kind` (or "auto") can be computed with on `device`.

    ConfigError where the kind does not belong to the device, EngineError where the machine lacks
    what it needs.
    """
    if kind != DYNAMIC:
        return
    if device.type != "cpu":
        raise ConfigError(f"weights is {DYNAMIC!r}, which is for a CPU: int8 or fp8 serve {device}")
    if reasons := missing():
        raise EngineError(f"weights of {DYNAMIC} cannot be computed with: {'; '.join(reasons)}")


def quantize_linear(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The matrix (out, in) of a Linear as q (out, in) of one byte and scale (out, 1) fp32.

    `kind` is one of KINDS.  A row of zeros stays one.  EngineError for values that are not
    finite.  On the meta device shapes and dtypes alone.
    """
    dtype, limit = KINDS[kind]
    q = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    scale = weight.new_empty((weight.shape[0], 1), dtype=torch.float32)
    for first in range(0, weight.shape[0], ROWS):  # a whole matrix in fp32 would be held for long
        rows = slice(first, first + ROWS)
        part = weight.detach()[rows].float()
        peak = part.abs().amax(dim=1, keepdim=True)
        if not part.is_meta and not peak.isfinite().all():
            raise EngineError(f"weights that are not finite cannot be held as {kind}")
        step = peak / limit  # which may underflow
        scale[rows] = torch.where(step > 0, step, 1.0)
        part = (part / scale[rows]).clamp_(-limit, limit)  # `weight` may lie in a read-only mapping
        q[rows] = (part.round_() if dtype is torch.int8 else part).to(dtype)
    return q, scale


class QuantizedLinear(nn.Module):
    """y = x W^T + b with W = scale * weight, `weight` being quantised and x in any float dtype.

    Parameters
    ----------
    linear : whose weight is quantised, on any device; its bias is taken over.

    The keys of the state dict are those of the Linear: `scale` is not among them.
    """

    weight: Tensor  # (out, in), int8 or e4m3
    scale: Tensor  # (out, 1), fp32

    def __init__(self, linear: nn.Linear, kind: str):
        super().__init__()
        self.kind, self.bias = kind, linear.bias
        weight, scale = quantize_linear(linear.weight, kind)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale, persistent=False)

    def take(self, weight: Tensor) -> Tensor:
        """Quantise `weight` (out, in) in place of what is held, for one that was made on the meta
        device: there is then never more than one matrix in full precision.  Returns q."""
        self.weight, self.scale = quantize_linear(weight, self.kind)
        return self.weight

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """W (out, in), rounded to `dtype` once: both kinds fit into fp16, bf16 and fp32."""
        return self.weight.to(dtype).mul_(self.scale)

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.kind == DYNAMIC:
            return linear_int8(x, self.weight, self.scale, bias, gelu)
        return linear(x, self.dequantize(x.dtype), bias, gelu)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, bias={self.bias is not None}, kind={self.kind}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        """Moves as every module does; a cast, such as that of the whole network, leaves q and
        scale alone."""
        before = self.weight, self.scale
        super()._apply(fn, recurse)
        for name, tensor in zip(("weight", "scale"), before, strict=True):
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        return self


def quantize_linears(module: nn.Module, kind: str) -> None:
    """Put a `QuantizedLinear` in place of every Linear inside `module`, one after another."""
    found = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    for name in found:
        try:
            new = QuantizedLinear(cast(nn.Linear, module.get_submodule(name)), kind)
        except EngineError as error:
            raise EngineError(f"{name}: {error}") from error
        module.set_submodule(name, new)


def quantize_blocks(network: Any, kind: str) -> None:
    """Quantise the matrices inside `network.blocks`: nearly all of the weights.

    Embeddings, the time and text networks and the output projection, which are small and whose
    errors reach every token, stay as they are.
    """
    quantize_linears(network.blocks, kind)
