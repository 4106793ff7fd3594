"""Every op on its production shape under pytest-benchmark, by implementation.

    python -m pytest tests/bench/benchmark_ops.py [--benchmark-json FILE] [-k NAME]

Not part of the test run, as the name says: it measures, and asserts no time.  The device is idle
when a round begins and when it ends.  Groups are one op and one dtype; `--benchmark-compare` sets
two runs side by side.  `bench.kernels` adds torch.compile and the bandwidth.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dtg_restore.bench.kernels import max_error, moved_bytes
from dtg_restore.engine.devices import resolve_device
from dtg_restore.kernels import OPS
from dtg_restore.kernels.dispatch import Implementation, Op

pytest.importorskip("pytest_benchmark")

RUNS = [
    pytest.param(op, implementation, dtype, id=f"{op.name}-{implementation.name}-{dtype}")
    for op in OPS
    for implementation in op.implementations
    for dtype in op.tolerance
]


@pytest.mark.parametrize(("op", "implementation", "dtype"), RUNS)
def test_op(benchmark: Any, op: Op, implementation: Implementation, dtype: torch.dtype) -> None:
    device = resolve_device("auto")
    arguments = op.cases[-1].build(dtype, device)
    if reasons := implementation.not_supported_reasons(*arguments):
        pytest.skip("; ".join(reasons))
    function = implementation.load()

    def call() -> Any:
        result = function(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    benchmark.group = f"{op.name} {dtype}"
    want = op.reference(*arguments)
    got = benchmark(call)
    benchmark.extra_info |= {
        "bytes": moved_bytes(op, arguments, want),
        "max_abs_error": max_error(got, want),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
