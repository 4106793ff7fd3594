"""Draws the tables of README.md and of docs/ from `bench/results/`.

    python -m dtg_restore.bench.tables          rewrite them
    python -m dtg_restore.bench.tables --check  exit with 1 where one would change

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`.  One whose results are not
there is left as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..engine.blend import fade
from .kernels import COMPILED, COPY

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quality(result: dict[str, Any]) -> str:
    rows = [
        [
            row["method"],
            f"{row['psnr']:.2f}",
            f"{row['temporal_error']:.2f}",
            f"{row['block_step']:.2f}",
        ]
        for row in result["rows"]
    ]
    return markdown(["", "PSNR (dB)", "temporal error", "block step"], rows)


def super_resolution(result: dict[str, Any]) -> str:
    kinds = list(result["settings"]["kinds"])
    rows = [
        [name, *(f"{model['gain'][kind]:+.2f}" for kind in kinds)]
        for name, model in result["models"].items()
    ]
    return markdown(["PSNR-Y over bicubic (dB)", *kinds], rows)


def codec(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['vae']} {row['direction']}",
            f"{row['diffusers']['best_s']:.2f} s",
            f"{row['ours']['best_s']:.2f} s",
            f"{row['ratio_of_best']:.2f}",
            f"{row['max_difference_over_scale']:.0e}",
        ]
        for row in result["rows"]
        if "ratio_of_best" in row
    ]
    return markdown(["Wan VAE", "diffusers", "ours", "ratio", "largest difference / scale"], rows)


def peers(result: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            row["peer"],
            f"{min(row['seconds']['peer']):.1f} s",
            f"{min(row['seconds']['ours']):.1f} s",
            f"{row['ratio']:.2f}",
            f"{row['max_error']:.0e}",
            f"{row['psnr']:.0f} dB",
        ]
        for row in result["rows"]
    ]
    header = ["small Wan", "against", "its time", "ours", "ratio", "largest error / scale", "PSNR"]
    return markdown(header, rows)


def wan_memory(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['bf16']['weights_bytes'] / 1e9:.1f} GB",
            f"{row['bf16']['constants_bytes'] / 1e9:.2f} GB",
            f"{row['bf16']['bytes_per_token'] / 1e3:.0f} kB",
        ]
        for name, row in result["rows"].items()
    ]
    return markdown(["Wan", "weights", "text keys and values, modulation", "a token"], rows)


def kernels(result: dict[str, Any]) -> str:
    """The fastest implementation of every op on its production shape."""
    timed = [row for row in result["rows"] if row["case"] == "production" and "best_s" in row]
    ours = [row for row in timed if row["implementation"] not in (COMPILED, COPY)]
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in ours:
        key = (row["op"], row["dtype"])
        if key not in best or row["best_s"] < best[key]["best_s"]:
            best[key] = row
    rows = [
        [
            f"`{row['op']}`",
            SHORT.get(row["dtype"], row["dtype"]),
            row["implementation"],
            f"{row['best_s'] * 1e3:.2f} ms",
            f"{row['ratio']:.2f}",
            "" if row["ratio_to_compiled"] is None else f"{row['ratio_to_compiled']:.2f}",
            f"{row['share_of_bandwidth']:.0%}",
        ]
        for row in best.values()
    ]
    header = ["op", "dtype", "fastest", "time", "over the reference", "over torch.compile of it"]
    return markdown([*header, "of the copy bandwidth"], rows)


def step(result: dict[str, Any]) -> str:
    rows = [
        [
            row["model"],
            row["path"],
            f"{row['best_s'] * 1e3:.1f} ms",
            f"{row['ratio']:.2f}",
            f"{row['max_error']:.0e}",
        ]
        for row in result["rows"]
    ]
    return markdown(["a step of", "path", "time", "ratio", "largest error / scale"], rows)


def roofline(result: dict[str, Any]) -> str:
    rows = [
        [
            row["stage"],
            f"{row['flop'] / 1e9:.0f} GFLOP",
            f"{row['best_s']:.2f} s",
            f"{row['flop_per_s'] / 1e9:.0f} GFLOP/s",
            f"{row['share_of_floor']:.0%}",
        ]
        for row in result["rows"]
    ]
    return markdown(["stage", "work", "time", "rate", "of the floor"], rows)


def throughput(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['frames']} frames of {row['width']} x {row['height']}",
            f"{row['chunks']}",
            f"{row['tiles']}",
            f"{row['frames_per_s']:.2f}",
            f"{row['first_frame_s']:.2f} s",
            f"{row['s_per_later_chunk']:.2f} s" if row["s_per_later_chunk"] else "",
            f"{max(row['peak_memory_bytes'].values()) / 1e6:.0f} MB",
        ]
        for series in result["rows"].values()
        for row in series
    ]
    header = ["clip", "chunks", "tiles", "frames/s", "first frame", "a later chunk", "peak memory"]
    return markdown(header, rows)


def mini(result: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            f"{min(row['seconds']['ours']):.2f} s",
            f"{row['ratio']:.2f}",
            f"{row['max_error']:.0e}",
            f"{row['psnr']:.0f} dB",
        ]
        for row in result["rows"]
    ]
    return markdown(["`mini`", "time", "ratio", "largest error / scale", "PSNR"], rows)


def runtimes(result: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            f"{min(row['seconds']['ours']) * 1e3:.0f} ms",
            f"{row['ratio']:.2f}",
            f"{row['max_error']:.0e}",
        ]
        for row in result["rows"]
    ]
    return markdown(["a pass of `mini` by", "time", "ratio", "largest error / scale"], rows)


def caching(result: dict[str, Any]) -> str:
    names = {"elide_tol": "elide", "reuse_tol": "reuse", "cache_tol": "cache"}
    rows = [
        [
            ", ".join(f"{short} {row[key]:g}" for key, short in names.items() if row.get(key)),
            f"{row['evaluations']:.1f} of {row['full']}",
            f"{row['psnr']:.1f} dB",
            f"{row['smallest_psnr']:.1f} dB",
        ]
        for row in result["rows"]
    ]
    return markdown(["tolerances", "evaluations", "PSNR to the exact run", "of the worst"], rows)


def engines(result: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            "" if row["export"] is None else f"{row['export']:.0f} s",
            f"{row['start']:.1f} s",
            f"{row['first_start']:.1f} s",
            f"{row['step']:.2f} s",
            f"{row['step_ratio']:.2f}",
            f"{row['peak_bytes']['host'] / 1e6:.0f} MB",
            f"{row['psnr']:.0f} dB",
        ]
        for row in result["rows"]
    ]
    header = ["by", "export", "start", "first start", "a step", "eager over it", "peak memory"]
    return markdown([*header, "PSNR to eager"], rows)


def joins(result: dict[str, Any]) -> str:
    rows = [
        [
            row["settings"],
            str(row["overlap"]),
            row["fade"],
            f"{row['step']:.2f}",
            _or_nothing(row, "largest_own_step", ".3f"),
            _or_nothing(row, "sharpness", ".3f"),
            f"{row['pulse']:.2f}",
            _or_nothing(row, "temporal_error", ".2f"),
            _or_nothing(row, "psnr", ".2f"),
        ]
        for row in result["rows"]
        if row["fade"] != "fitted"
    ]
    header = ["", "overlap", "fade", "step", "largest own step", "sharpness", "pulse"]
    return markdown([*header, "temporal error", "PSNR (dB)"], rows)


def fitted(result: dict[str, Any]) -> str:
    rows = [
        [row["settings"], str(row["overlap"]), _weights(row["weights"])]
        for row in result["rows"]
        if row["fade"] == "fitted"
    ]
    ours = [
        ["ours", str(count), _weights(fade(count).tolist())]
        for count in sorted({int(row[1]) for row in rows})
    ]
    return markdown(["", "overlap", "weights of the later chunk"], rows + ours)


def _weights(values: list[float]) -> str:
    return ", ".join(f"{round(value, 2) + 0:.2f}" for value in values)  # no -0.00


def color(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['clips']}, {row['settings']}",
            row["method"],
            f"{row['drift']:.2f}",
            f"{row['largest_drift']:.2f}",
            f"{row['join_change']:.2f}",
            f"{row['other_change']:.2f}",
            f"{row['pulse']:.2f}",
            _or_nothing(row, "psnr", ".2f"),
        ]
        for row in result["rows"]
    ]
    header = ["clips", "match", "drift", "worst frame", "change at joins", "elsewhere", "pulse"]
    return markdown([*header, "PSNR (dB)"], rows)


def _or_nothing(row: dict[str, Any], name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""


class Table(NamedTuple):
    page: str
    file: str
    draw: Callable[[dict[str, Any]], str]


README, SPEED, EXPORT = "README.md", "docs/SPEED.md", "docs/EXPORT.md"
QUALITY = "docs/QUALITY.md"
PAGES = (README, SPEED, EXPORT, QUALITY)
TABLES = {
    "quality": Table(README, "quality_mini.json", quality),
    "super-resolution": Table(README, "sr_mini.json", super_resolution),
    "peers": Table(README, "peers_small.json", peers),
    "mini": Table(README, "peers_mini.json", mini),
    "wan-memory": Table(README, "wan_memory.json", wan_memory),
    "codec": Table(SPEED, "codec_wan.json", codec),
    "runtimes": Table(SPEED, "runtimes_mini.json", runtimes),
    "caching": Table(SPEED, "caching_mini.json", caching),
    "roofline": Table(SPEED, "roofline.json", roofline),
    "step": Table(SPEED, "step.json", step),
    "kernels": Table(SPEED, "kernels.json", kernels),
    "throughput": Table(SPEED, "throughput_mini.json", throughput),
    "engines-mini": Table(EXPORT, "engines_mini.json", engines),
    "engines-wan": Table(EXPORT, "engines_wan.json", engines),
    "joins": Table(QUALITY, "joins_mini.json", joins),
    "fitted": Table(QUALITY, "joins_mini.json", fitted),
    "color": Table(QUALITY, "color_mini.json", color),
}


def render(text: str, page: str) -> str:
    """`text` of `page` with every table of it drawn anew."""
    for name, table in TABLES.items():
        if table.page != page or not (RESULTS / table.file).is_file():
            continue
        drawn = table.draw(json.loads((RESULTS / table.file).read_text()))
        head, tail = f"<!-- table {name} -->\n", f"<!-- end {name} -->"
        if text.count(head) != 1 or text.count(tail) != 1:
            raise ValueError(f"{page} does not hold one place for the table {name!r}")
        before, rest = text.split(head)
        text = before + head + drawn + "\n" + tail + rest.split(tail)[1]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    stale = False
    for page in PAGES:
        before = (ROOT / page).read_text()
        after = render(before, page)
        stale |= before != after
        if not args.check:
            (ROOT / page).write_text(after)
    if args.check:
        sys.exit(int(stale))


if __name__ == "__main__":
    main()
