"""Frames a second and latency against the length of a clip, its size and its tiles.

    python -m dtg_restore.bench.throughput --json bench/results/throughput_mini.json

Time must grow linearly with the frames, and so with the chunks; the first frame comes when the
first chunk is done, however long the clip is, and from then on every chunk costs the same.  Cases
are measured in turns, so that a machine that slows down slows all of them.  The peak of the memory
is that of one more run in a process of its own, as the peak of a process never falls.  `overlap` is
that of the last round: the share of the time in which two stages or more ran, and each one's.

`growth` judges the series of lengths: a line through its times, what a frame costs at the end of
it over what one costs at the beginning, and the peak of the longest clip over that of the shortest
with more than one chunk.  `bench.memory` does the same for thousands of frames and for files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch

from ..engine.heap import keep_freed_memory
from ..engine.report import peak_memory
from ..engine.restorer import Restorer
from .pattern import moving
from .provenance import provenance

# Noise: so much more a frame may cost at the end, and so much more a long clip may hold.
LINEAR, CONSTANT = 1.15, 1.05


def run(restorer: Restorer, num_frames: int, height: int, width: int) -> dict[str, Any]:
    """Seconds to the first restored frame and from there to the last; the number of chunks; how
    stages overlapped."""
    size = (height, width)
    start = time.perf_counter()
    one = restorer.run(size)  # the pattern has no cuts
    stream = one.frames(one.clock.timed("decode", moving(num_frames, *size)), 0, None)
    next(stream)
    first = time.perf_counter()
    rest = sum(1 for _ in stream)
    if rest != num_frames - 1:
        raise RuntimeError(f"{rest + 1} of {num_frames} frames came back")
    seconds = {"first": first - start, "rest": time.perf_counter() - first}
    chunks = one.timeline.touching(0, num_frames, num_frames)
    return seconds | {"chunks": len(chunks), "overlap": one.clock.overlap()}


def peak_bytes(case: dict[str, Any], settings: dict[str, Any], threads: int) -> dict[str, int]:
    """Peaks of the host's and, where there is one, the device's memory in this whole process."""
    torch.set_num_threads(threads)
    restorer = Restorer.load(**settings, tile=case["tile"])
    run(restorer, case["frames"], case["height"], case["width"])
    return peak_memory()


def alone(case: dict[str, Any], settings: dict[str, Any]) -> dict[str, int]:
    """`peak_bytes` of a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_bytes, case, settings, torch.get_num_threads()).result()


def measure(cases: list[dict[str, Any]], rounds: int, **settings: Any) -> list[dict[str, Any]]:
    """Median of `rounds` for every case: frames, height, width, tile."""
    restorers = [Restorer.load(**settings, tile=case["tile"]) for case in cases]
    seconds: list[list[dict[str, Any]]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, restorer, found in zip(cases, restorers, seconds, strict=True):
            found.append(run(restorer, case["frames"], case["height"], case["width"]))
    rows = []
    for case, restorer, found in zip(cases, restorers, seconds, strict=True):
        first, total = (
            median(values)
            for values in ([f["first"] for f in found], [f["first"] + f["rest"] for f in found])
        )
        plan = restorer.plan(case["height"], case["width"])
        chunks = found[-1]["chunks"]
        later = median(f["rest"] for f in found) / (chunks - 1) if chunks > 1 else None
        rows.append(
            case
            | {
                "tiles": len(plan.tiles) if plan else 0,
                "chunks": chunks,
                "first_frame_s": round(first, 3),
                "total_s": round(total, 3),
                "frames_per_s": round(case["frames"] / total, 3),
                "s_per_chunk": round(total / max(1, chunks), 3),
                "s_per_later_chunk": later and round(later, 3),
                "peak_memory_bytes": alone(case, settings),
                "overlap": found[-1]["overlap"],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def growth(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What time and memory do over rows of growing length, the first of one chunk."""
    frames = [row["frames"] for row in rows]
    times = [row["total_s"] for row in rows]
    slope, start = linear_regression(frames, times)
    residual = max(abs(start + slope * n - s) for n, s in zip(frames, times, strict=True))
    middle = len(rows) // 2
    late = (times[-1] - times[middle]) / (frames[-1] - frames[middle])
    early = (times[middle] - times[0]) / (frames[middle] - frames[0])
    kind = "device" if "device" in rows[-1]["peak_memory_bytes"] else "host"
    longest, short = (row["peak_memory_bytes"][kind] for row in (rows[-1], rows[1]))
    return {
        "s_per_frame": round(slope, 4),
        "s_at_zero_frames": round(start, 4),
        "largest_residual_over_longest": round(residual / times[-1], 4),
        "late_over_early_cost": round(late / early, 3),
        "time_is_linear": late / early <= LINEAR,
        "memory_ratio": round(longest / short, 3),
        "memory_is_constant": longest / short <= CONSTANT,
    }


def main() -> None:
    keep_freed_memory()  # as `restore` does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 28, 52, 100])
    parser.add_argument("--widths", type=int, nargs="+", default=[96, 192, 288])
    parser.add_argument("--tiles", type=int, nargs="+", default=[48, 64, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sr", default="mini-x2")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    def case(frames: int = 16, width: int = 192, tile: int = 64) -> dict[str, Any]:
        return {"frames": frames, "height": width * 2 // 3, "width": width, "tile": (tile, tile)}

    series = {
        "length": [case(frames=n, width=96) for n in options.frames],
        "size": [case(width=w) for w in options.widths],
        "tile": [case(tile=t) for t in options.tiles],
    }
    rows = {name: measure(cases, options.rounds, sr=options.sr) for name, cases in series.items()}
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    found = {"provenance": provenance(), "settings": settings, "rows": rows}
    if len(options.frames) > 2:
        found["growth"] = growth(rows["length"])
        print(json.dumps(found["growth"]))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
