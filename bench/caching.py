"""What leaving out, reusing and caching evaluations costs: PSNR to the exact run.

    python -m dtg_restore.bench.caching --data DATA --json FILE

Real and generated clips, two seeds each: the PSNR over all runs and that of the worst, and the mean
number of evaluations.  Nothing is timed: a run takes about as long as its evaluations.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.restorer import Restorer
from ..engine.run import Run
from .material import read
from .provenance import provenance

CLIPS = (
    *("clips/cat_on_grass", "clips/sintel_alley", "clips2/street_bus"),
    *("generated/jellyfish", "generated/sea_shore_dusk"),
)
BASE: dict[str, Any] = {"alpha0": 2.0, "space": "velocity", "branches": "batched"}
WAYS: tuple[dict[str, float], ...] = (
    {"elide_tol": 0.03},
    {"elide_tol": 0.1},
    {"reuse_tol": 0.03},
    {"reuse_tol": 0.1},
    {"reuse_tol": 0.3},
    {"cache_tol": 0.1},
    {"cache_tol": 0.2},
    {"elide_tol": 0.03, "reuse_tol": 0.1, "cache_tol": 0.1},
    {"elide_tol": 0.03, "reuse_tol": 0.1, "cache_tol": 0.2},
)


def material(data: Path, frames: int, side: int) -> Iterator[tuple[str, Tensor]]:
    """Name and the centre of every clip that is there, reduced four times."""
    for name in CLIPS:
        path = (data / name).with_suffix(".mp4")
        if path.is_file():
            clip = read(path, frames, start=8)
            small = [size // 4 for size in clip.shape[-2:]]
            clip = F.interpolate(clip, small, mode="bicubic", antialias=True).clamp(0, 1)
            y, x = ((size - side) // 2 for size in small)
            yield path.stem, clip[..., y : y + side, x : x + side]


def restore(restorer: Restorer, frames: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The restored frames and the report of the run."""
    size = (frames.shape[-2], frames.shape[-1])
    run = Run(
        *(restorer.config, restorer.backbone, restorer.codec, restorer.sr, restorer.plan(*size)),
        *(restorer.device, size),
    )
    return torch.stack(list(run.frames(iter(frames), 0, None))), run.report()


def row(settings: dict[str, Any], runs: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """One line of the table, over runs of (mean square error, report)."""
    errors = [error for error, _ in runs]
    made = [sum(report["evaluations"].values()) for _, report in runs]
    largest = {
        idea: max(report[idea]["largest_error"] for _, report in runs)
        for idea in ("elision", "reuse", "caching")
    }
    return settings | {
        "full": 2 * settings["steps"],
        "evaluations": sum(made) / len(made),
        "psnr": decibel(sum(errors) / len(errors)),
        "smallest_psnr": decibel(max(errors)),
        "largest_estimate": largest,
    }


def decibel(error: float) -> float | None:
    """PSNR of a mean square error; None where there is none."""
    return -10 * math.log10(error) if error else None


def line(row: dict[str, Any]) -> str:
    ideas = ", ".join(
        f"{k} {row[k]:g}" for k in ("elide_tol", "reuse_tol", "cache_tol") if k in row
    )
    quality = "exact" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
    worst = "exact" if row["smallest_psnr"] is None else f"{row['smallest_psnr']:.1f}"
    made = f"{row['evaluations']:5.1f} of {row['full']}"
    return f"{row['steps']:3} steps  {made}  {quality} (worst {worst})  {ideas}"


def measure(clips: list[Tensor], steps: list[int], seeds: int, t_start: float) -> Iterator[Any]:
    """The rows, one after the other."""
    side = clips[0].shape[-1]
    small: dict[str, Any] = {"chunk": len(clips[0]), "overlap": 0, "tile": (side, side)}
    loaded = Restorer.load(sr="none", device="cpu", t_start=t_start, **BASE, **small)
    for count in steps:
        runs: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in WAYS]
        for clip in clips:
            for seed in range(seeds):
                exact = loaded.configure(steps=count, seed=seed)
                want, _ = restore(exact, clip)
                for way, found in zip(WAYS, runs, strict=True):
                    got, report = restore(exact.configure(**way), clip)
                    found.append(((got - want).square().mean().item(), report))
        for way, found in zip(WAYS, runs, strict=True):
            yield row({"steps": count, **way}, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--t-start", type=float, default=0.4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    clips = dict(material(options.data, options.frames, options.side))
    rows = []
    for found in measure(list(clips.values()), options.steps, options.seeds, options.t_start):
        rows.append(found)
        print(line(found), flush=True)
    if options.json:
        names = ("steps", "seeds", "t_start", "frames", "side")
        settings = BASE | {name: getattr(options, name) for name in names}
        result = {"settings": settings, "clips": list(clips), "rows": rows}
        text = json.dumps({"provenance": provenance(), **result}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
