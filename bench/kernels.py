"""Times every implementation of every registered op, its cases and dtypes.

    python -m dtg_restore.bench.kernels [--all-cases] [--json FILE]

The implementations of one case take turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..kernels import OPS
from ..kernels.dispatch import Case, Op
from .provenance import provenance


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """One timed call, from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def tensors(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def max_error(got: Tensor | tuple[Tensor, ...], want: Tensor | tuple[Tensor, ...]) -> float:
    pairs = zip(tensors(got), tensors(want), strict=True)
    # float64: code values of pictures have no sign, and no difference in uint16
    return max((g.double() - w.double()).abs().max().item() if w.numel() else 0.0 for g, w in pairs)


def measure(
    op: Op, case: Case, dtype: torch.dtype, device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """One row for each implementation: median and best time, and the error to the reference."""
    arguments = case.build(dtype, device)
    want = op.reference(*arguments)
    rows: list[dict[str, Any]] = []
    runs: list[Callable[[], Any]] = []
    for implementation in op.implementations:
        about = {"op": op.name, "case": case.name, "dtype": str(dtype).removeprefix("torch.")}
        row = about | {"implementation": implementation.name, "values": tensors(want)[0].numel()}
        reasons = implementation.not_supported_reasons(*arguments)
        rows.append(row | {"reasons": reasons})
        if not reasons:
            function = implementation.load()
            rows[-1]["max_abs_error"] = max_error(function(*arguments), want)
            runs.append(partial(function, *arguments))
    times = [[seconds(run, device) for run in runs] for _ in range(rounds)]
    able = [row for row in rows if not row["reasons"]]
    for row, column in zip(able, zip(*times, strict=True), strict=True):
        row |= {"median_s": statistics.median(column), "best_s": min(column)}
    return rows


def line(row: dict[str, Any]) -> str:
    name = f"{row['op']:16} {row['case']:18} {row['dtype']:9} {row['implementation']:10}"
    if row["reasons"]:
        return f"{name} -  {'; '.join(row['reasons'])}"
    per_value = f"{row['median_s'] / max(row['values'], 1) * 1e9:8.2f} ns a value"
    return f"{name} {row['median_s'] * 1e3:9.3f} ms {per_value}   error {row['max_abs_error']:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--all-cases", action="store_true", help="not only the production shape")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    options = parser.parse_args()

    rows = []
    for op in OPS:
        for case in op.cases if options.all_cases else op.cases[-1:]:
            for dtype in op.tolerance:
                device = torch.device(options.device)
                for row in measure(op, case, dtype, device, options.rounds):
                    rows.append(row)
                    print(line(row), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"provenance": provenance(), "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()
