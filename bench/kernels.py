"""Times every implementation of every registered op, its cases and dtypes.

    python -m dtg_restore.bench.kernels [--all-cases] [--json FILE]

Beside the implementations stand the reference as torch.compile makes it, compiled once for a case
and a dtype, and a copy that moves as many bytes as the op has to.  All of one case take turns, so
that a machine that slows down slows all of them.

`bytes` are those of all inputs and outputs, each read or written once, unless the op declares
otherwise.  `share_of_bandwidth` is their rate over that of a copy that no cache holds;
`share_of_copy` over that of the copy of the same size: small cases live in a cache, and on a GPU
are bound by their launch, which both copy and op suffer.  Both may exceed 1 where an op reads more
than it writes, as a write costs more.  `ratio` is the reference's time over that
of the row, `ratio_to_compiled` that of the compiled reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..kernels import OPS
from ..kernels.dispatch import Case, Op
from .ceilings import copy_bandwidth
from .provenance import provenance

COMPILED, COPY = "compiled reference", "copy"
ENOUGH = 2e-3  # seconds: shorter calls are timed several in a row

Row = dict[str, Any]


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """One timed call, from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def seconds_a_call(run: Callable[[], Any], device: torch.device, calls: int) -> float:
    def in_a_row() -> None:
        for _ in range(calls):
            run()

    return seconds(in_a_row, device) / calls


def tensors(values: Any) -> Iterator[Tensor]:
    """Those among arguments or results, in whatever tuples, lists and dataclasses they lie."""
    if isinstance(values, Tensor):
        yield values
    elif is_dataclass(values):
        yield from tensors([getattr(values, field.name) for field in fields(values)])
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors(value)


def held_bytes(tensor: Tensor) -> int:
    """Of the memory behind it: what is expanded is held once."""
    if tensor.layout != torch.strided:  # a library's own, packed one
        return tensor.numel() * tensor.element_size()
    sizes = [s for s, step in zip(tensor.shape, tensor.stride(), strict=True) if step or s == 0]
    return torch.Size(sizes).numel() * tensor.element_size()


def moved_bytes(op: Op, arguments: tuple[Any, ...], result: Any) -> int:
    """What the op has to read and to write at least."""
    if op.moved_bytes is not None:
        return op.moved_bytes(*arguments)
    return sum(map(held_bytes, tensors((arguments, result))))


def max_error(got: Any, want: Any) -> float:
    pairs = zip(tensors(got), tensors(want), strict=True)
    # float64: code values of pictures have no sign, and no difference in uint16
    return max(
        ((g.double() - w.double()).abs().max().item() if w.numel() else 0.0 for g, w in pairs),
        default=0.0,
    )


def compiled(op: Op, arguments: tuple[Any, ...]) -> tuple[Callable[..., Any] | None, list[str]]:
    """The reference as torch.compile makes it for these arguments, or why it does not."""
    torch._dynamo.reset()
    function = torch.compile(op.reference, dynamic=False)
    try:
        function(*arguments)
    except Exception as error:  # of a compiler, of many kinds
        return None, [f"torch.compile: {' '.join(str(error).split())[:160]}"]
    return function, []


def candidates(
    op: Op, arguments: tuple[Any, ...], with_compiled: bool
) -> Iterator[tuple[str, Callable[..., Any] | None, list[str]]]:
    """Name, function, and the reasons where there is none."""
    for implementation in op.implementations:
        reasons = implementation.not_supported_reasons(*arguments)
        yield implementation.name, None if reasons else implementation.load(), reasons
    if with_compiled:
        yield COMPILED, *compiled(op, arguments)


def copy_of(num_bytes: int, device: torch.device) -> Callable[[], Any]:
    """A call that reads half of them and writes the other half."""
    source = torch.zeros(num_bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return partial(target.copy_, source)


def measure(
    op: Op,
    case: Case,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    bandwidth: float,
    with_compiled: bool = True,
) -> list[Row]:
    """One row for each implementation: times, shares, and the largest difference to the reference.

    `bandwidth` is that of a copy that no cache holds, in bytes a second.
    """
    arguments = case.build(dtype, device)
    want = op.reference(*arguments)
    moved = moved_bytes(op, arguments, want)
    about = {
        **{"op": op.name, "case": case.name, "dtype": str(dtype).removeprefix("torch.")},
        **{"values": next(tensors(want)).numel(), "bytes": moved},
    }
    rows: list[Row] = []
    runs: list[Callable[[], Any]] = []
    for name, function, reasons in candidates(op, arguments, with_compiled):
        rows.append(about | {"implementation": name, "reasons": reasons})
        if function is not None:
            rows[-1]["max_abs_error"] = max_error(function(*arguments), want)
            runs.append(partial(function, *arguments))
    rows.append(about | {"implementation": COPY, "reasons": []})
    runs.append(copy_of(moved, device))
    able = [row for row in rows if not row["reasons"]]
    for row, column in zip(able, take_turns(runs, device, rounds), strict=True):
        row |= {"median_s": statistics.median(column), "best_s": min(column)}
    return list(compared(rows, bandwidth))


def take_turns(
    runs: list[Callable[[], Any]], device: torch.device, rounds: int
) -> Iterator[tuple[float, ...]]:
    """Seconds a call of each, for every round."""
    calls = [max(1, min(50, int(ENOUGH / seconds(run, device)))) for run in runs]
    pairs = list(zip(runs, calls, strict=True))
    return zip(
        *([seconds_a_call(run, device, n) for run, n in pairs] for _ in range(rounds)), strict=True
    )


def compared(rows: Iterable[Row], bandwidth: float) -> Iterator[Row]:
    """Rows with their rates, against copies, the reference and the compiled one."""
    rows = list(rows)
    best = {row["implementation"]: row["best_s"] for row in rows if "best_s" in row}
    for row in rows:
        if "best_s" not in row:
            yield row
            continue
        took = row["best_s"]
        rate = row["bytes"] / took
        yield row | {
            "bytes_per_s": rate,
            "share_of_bandwidth": round(rate / bandwidth, 3),
            "share_of_copy": round(best[COPY] / took, 3),
            "ratio": round(best["reference"] / took, 3),
            "ratio_to_compiled": round(best[COMPILED] / took, 3) if COMPILED in best else None,
        }


def line(row: Row) -> str:
    name = f"{row['op']:20} {row['case']:18} {row['dtype']:9} {row['implementation']:18}"
    if row["reasons"]:
        return f"{name} -  {'; '.join(row['reasons'])}"
    error = f"   error {row['max_abs_error']:.1e}" if "max_abs_error" in row else ""
    return (
        f"{name} {row['best_s'] * 1e3:9.3f} ms  x{row['ratio']:<6.2f} "
        f"{row['share_of_bandwidth']:6.1%} of the bandwidth{error}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ops", nargs="+", choices=[op.name for op in OPS], help="default: all")
    parser.add_argument("--dtypes", nargs="+", help="as torch names them; default: all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--all-cases", action="store_true", help="not only the production shape")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    options = parser.parse_args()

    device = torch.device(options.device)
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    rows: list[Row] = []
    bandwidth = max(copy_bandwidth(device) for _ in range(3))
    found = {
        **{"provenance": provenance(), "settings": settings},
        **{"copy_bytes_per_s": bandwidth, "rows": rows},
    }
    for op in OPS:
        if options.ops and op.name not in options.ops:
            continue
        for row in rows_of(op, device, bandwidth, options):
            rows.append(row)
            print(line(row), flush=True)
        if options.json:  # after every op: a run that is cut off has not been for nothing
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(found, indent=1) + "\n")


def rows_of(
    op: Op, device: torch.device, bandwidth: float, options: argparse.Namespace
) -> Iterator[Row]:
    for case in op.cases if options.all_cases else op.cases[-1:]:
        for dtype in op.tolerance:
            if not options.dtypes or str(dtype).removeprefix("torch.") in options.dtypes:
                yield from measure(
                    op, case, dtype, device, options.rounds, bandwidth, not options.no_compile
                )


if __name__ == "__main__":
    main()
