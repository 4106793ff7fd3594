"""Restores the first frames of every clip of a folder: does each come through, and what changed?

    python -m dtg_restore.bench.corpus DATA/clips DATA/generated --out RESULTS.json --keep FOLDER

There is no ground truth: the measures compare the result, reduced to the input's size, with the
input.  `change` is the PSNR to the input in dB, `motion` the mean difference between neighbouring
frames over the input's, `colour_drift` the largest difference of a channel's mean in any frame, in
8-bit code values.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.restorer import Restorer
from .material import read
from .metrics import block_step, psnr
from .provenance import provenance


def compare(before: Tensor, after: Tensor) -> dict[str, float]:
    """Measures of a result against its input, frames (T, 3, H, W) each."""
    after = F.interpolate(after, before.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)
    means = (after.mean(dim=(-2, -1)) - before.mean(dim=(-2, -1))).abs().max()
    return {
        "change": psnr(after, before),
        "motion": (after.diff(dim=0).abs().mean() / before.diff(dim=0).abs().mean()).item(),
        "colour_drift": 255 * means.item(),
        "block_step_before": block_step(before),
        "block_step": block_step(after),
    }


def restore_one(restorer: Restorer, source: Path, target: Path, frames: int) -> dict[str, Any]:
    """One row; a failure is a row with its error, not the end of the run."""
    row: dict[str, Any] = {"file": source.name}
    start = time.perf_counter()
    try:
        report = restorer.restore_file(
            source, target, frames=(0, frames - 1), overwrite=True, crf=12
        )
    except Exception as error:  # what came through and what did not is the result
        return row | {"error": f"{type(error).__name__}: {error}"}
    count = report["frames"]["count"]
    row |= {"frames": count, "seconds": round(time.perf_counter() - start, 1)}
    return row | compare(read(source, count), read(target, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="where the results stay")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--sr", default="none")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--only", nargs="*", help="names of files, without their suffix")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    names = ("backbone", "sr", "dtype", "steps", "chunk", "overlap")
    restorer = Restorer.load(**{name: getattr(options, name) for name in names})
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for folder in options.folders:
            for source in sorted(folder.rglob("*.mp4")):
                if options.only and source.stem not in options.only:
                    continue
                row = restore_one(restorer, source, keep / f"{source.stem}.mp4", options.frames)
                rows.append(row)
                print(json.dumps(row), flush=True)
    failed = sum("error" in row for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} clips restored")
    settings = {
        key: str(value) for key, value in vars(options).items() if key not in ("out", "keep")
    }
    result = {"provenance": provenance(), "settings": settings, "failed": failed, "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
