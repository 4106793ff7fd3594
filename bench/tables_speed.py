"""Tables of times, rates and memory."""

from __future__ import annotations

from typing import Any

from .kernels import COMPILED, COPY
from .markdown import markdown

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


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
