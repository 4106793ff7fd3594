"""Frames a second and latency against the length of a clip, its size and its tiles.

    python -m dtg_restore.bench.throughput --json bench/results/throughput_mini.json

Time must grow linearly with the frames, and so with the chunks; the first frame comes when the
first chunk is done, however long the clip is.  Cases are measured in turns, so that a machine
that slows down slows all of them.  `overlap` is that of the last round: the share of the time in
which two stages or more ran, and each one's.  `bench.memory` shows that memory does not grow.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from ..engine.restorer import Restorer
from ..engine.run import Run
from .pattern import moving
from .provenance import provenance


def run(restorer: Restorer, num_frames: int, height: int, width: int) -> dict[str, Any]:
    """Seconds to the first restored frame and from there to the last; how stages overlapped."""
    r, size = restorer, (height, width)
    start = time.perf_counter()
    one = Run(r.config, r.backbone, r.codec, r.sr, r.plan(*size), r.device, size)
    stream = one.frames(one.clock.timed("decode", moving(num_frames, *size)), 0, None)
    next(stream)
    first = time.perf_counter()
    rest = sum(1 for _ in stream)
    if rest != num_frames - 1:
        raise RuntimeError(f"{rest + 1} of {num_frames} frames came back")
    seconds = {"first": first - start, "rest": time.perf_counter() - first}
    return seconds | {"overlap": one.clock.overlap()}


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
        chunks = plan.grid.touching(0, case["frames"], case["frames"]) if plan else []
        rows.append(
            case
            | {
                "tiles": len(plan.tiles) if plan else 0,
                "chunks": len(chunks),
                "first_frame_s": round(first, 3),
                "total_s": round(total, 3),
                "frames_per_s": round(case["frames"] / total, 3),
                "s_per_chunk": round(total / max(1, len(chunks)), 3),
                "overlap": found[-1]["overlap"],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
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
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
