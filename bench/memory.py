"""Peak memory against the length of a clip: it must not grow.

    python -m dtg_restore.bench.memory --out bench/results/memory_mini.json

Each length is restored by a process of its own, as the peak of a process never falls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..engine.media import open_writer
from ..engine.types import ColourTags
from .pattern import moving
from .provenance import provenance


def write_clip(path: Path, num_frames: int, width: int, height: int) -> None:
    with open_writer(
        path, width=width, height=height, fps=Fraction(24), colour=ColourTags()
    ) as writer:
        for frame in moving(num_frames, height, width):
            writer.write(frame)


def peak(num_frames: int, options: argparse.Namespace) -> dict[str, Any]:
    """Restore a clip of `num_frames` in a fresh process; its length and peak in bytes."""
    width, height = options.size
    with tempfile.TemporaryDirectory() as folder:
        source, target, report = (Path(folder) / n for n in ("in.mp4", "out.mp4", "report.json"))
        write_clip(source, num_frames, width, height)
        command = [sys.executable, "-m", "dtg_restore.cli", "restore", str(source), str(target)]
        command += ["--report", str(report), "--progress", "none"]
        command += ["--steps", str(options.steps), "--sr", options.sr]
        subprocess.run(command, check=True)
        done = json.loads(report.read_text())
    frames = done["frames"]["count"]
    if frames != num_frames:
        raise RuntimeError(f"{frames} of {num_frames} frames came back")
    return {"frames": frames, "peak_bytes": done["peak_memory_bytes"]["host"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--size", type=int, nargs=2, default=[96, 64], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--sr", default="none")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    rows = []
    for num_frames in options.frames:
        rows.append(peak(num_frames, options))
        print(json.dumps(rows[-1]), flush=True)
    ratio = rows[-1]["peak_bytes"] / rows[0]["peak_bytes"]
    print(f"peak memory, longest over shortest: {ratio:.3f}")
    result = {"provenance": provenance(), "settings": vars(options) | {"out": None}}
    options.out.write_text(json.dumps(result | {"rows": rows, "ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
