"""Tables of what frames look like: errors, joins of chunks, colour, cuts."""

from __future__ import annotations

from typing import Any

from ..engine.blend import fade
from .markdown import markdown, or_nothing


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


def joins(result: dict[str, Any]) -> str:
    rows = [
        [
            row["settings"],
            str(row["overlap"]),
            row["fade"],
            f"{row['step']:.2f}",
            or_nothing(row, "largest_own_step", ".3f"),
            or_nothing(row, "sharpness", ".3f"),
            f"{row['pulse']:.2f}",
            or_nothing(row, "temporal_error", ".2f"),
            or_nothing(row, "psnr", ".2f"),
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
            or_nothing(row, "psnr", ".2f"),
        ]
        for row in result["rows"]
    ]
    header = ["clips", "match", "drift", "worst frame", "change at joins", "elsewhere", "pulse"]
    return markdown([*header, "PSNR (dB)"], rows)


def shots(result: dict[str, Any]) -> str:
    """How well detectors find cuts; of the peers each at its best threshold."""
    rows = {row["detector"].split()[0]: row for row in sorted(result["rows"], key=_f1)}
    found = sorted(rows.values(), key=_f1, reverse=True)
    return markdown(
        ["detector", "F1", "precision", "recall"],
        [[_name(r), *(f"{r[k]:.3f}" for k in ("f1", "precision", "recall"))] for r in found],
    )


def _f1(row: dict[str, Any]) -> float:
    return row["f1"]


def _name(row: dict[str, Any]) -> str:
    name, _, threshold = row["detector"].partition(" ")
    return f"PySceneDetect {name}, threshold {threshold}" if threshold else name
