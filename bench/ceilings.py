"""What this machine can do at best: a matrix product, and a copy that no cache holds.

On a CPU two libraries make the product, and neither is the faster one everywhere: BLAS behind
`a @ b` (MKL in the builds of torch for x86), and oneDNN on a weight that was brought into its own
layout before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..engine.devices import resolve_dtype

# Rows, inputs and outputs of products that are large enough to be efficient.
SHAPES = {
    "cpu": ((768, 768, 768), (1536, 1536, 1536), (2048, 512, 2048)),
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192)),
}


@torch.inference_mode()
def matmul_rates(device: torch.device, seconds: float = 0.2) -> dict[str, float]:
    """FLOP/s of each library's best product on `device`, in the dtype that is usual there.

    `seconds` are spent on every library and shape.
    """
    rates: dict[str, float] = {}
    for rows, inputs, outputs in SHAPES[device.type]:
        kind: dict[str, Any] = {"device": device, "dtype": resolve_dtype("auto", device)}
        x, weight = torch.randn(rows, inputs, **kind), torch.randn(outputs, inputs, **kind)
        for name, product in products(x, weight):
            rate = 2 * rows * inputs * outputs / best_seconds(product, device, seconds)
            rates[name] = max(rate, rates.get(name, 0.0))
    return rates


def products(x: Tensor, weight: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The ways to multiply x (rows, inputs) by the weight (outputs, inputs)."""
    matrix = weight.T.contiguous()
    if x.device.type == "cuda":
        yield "cuBLAS", lambda: x @ matrix
        return
    yield "MKL" if torch.backends.mkl.is_available() else "BLAS", lambda: x @ matrix
    if torch.backends.mkldnn.is_available() and x.dtype == torch.float32:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        yield (
            "oneDNN",
            lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
        )


def best_seconds(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The fastest of the calls that `seconds` allow, at least two, after one to warm up."""
    call()
    _wait(device)
    best, count, begin = float("inf"), 0, time.perf_counter()
    while count < 2 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        _wait(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def copy_bandwidth(device: torch.device, seconds: float = 0.3) -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.empty(2**27 // (1 if device.type == "cuda" else 4), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device, seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
