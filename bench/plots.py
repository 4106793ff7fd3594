"""Draws the figures of the README from `bench/results/`.

    python -m dtg_restore.bench.plots           docs/peers.svg and docs/roofline.svg
    python -m dtg_restore.bench.plots --check   exit with 1 where one of them would change

A figure whose results are not there is left as it is.  `--results bench/results/gpu --out docs/gpu`
draws those of another machine.  Needs matplotlib: `pip install 'dtg-restore[bench]'`.  The same
results give the same bytes with one version of it.  Paper is transparent and ink grey, so that a
light page and a dark one show both.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .provenance import ROOT
from .tables import RESULTS

INK, FAINT = "#7f868e", "#7f868e55"  # of the same contrast to white and to black
COLOURS = ("#4a8fd4", "#d9822b", "#3f9f7a")
STYLE: Any = {
    "svg.hashsalt": "dtg-restore",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}

Draw = Callable[[Any, dict[str, Any]], None]


def peers(axes: Any, result: dict[str, Any]) -> None:
    """How many times faster than each peer, by part, and what the results differ by.

    Our own exact run is no peer here.
    """
    rows = [row for row in result["rows"] if row["peer"] != "ours"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    against = list(dict.fromkeys(row["peer"] for row in rows))
    height = 0.8 / len(against)
    for i, peer in enumerate(against):
        own = [row for row in rows if row["peer"] == peer]
        places = [names.index(row["name"]) - 0.4 + height * (i + 0.5) for row in own]
        ratios = [row["ratio"] for row in own]
        axes.barh(places, ratios, 0.9 * height, color=COLOURS[i % len(COLOURS)], label=peer)
        for place, row in zip(places, own, strict=True):
            text = f"{row['ratio']:.2f}x   error {row['max_error']:.0e}, {row['psnr']:.0f} dB"
            beside = (max(row["ratio"], 1.0), place)  # never across the line of equal times
            axes.annotate(text, beside, (5, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6 * max(row["ratio"] for row in rows))
    axes.set_xlabel("time of the peer over ours, same weights (error over the largest value)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=len(against))


def roofline(axes: Any, result: dict[str, Any]) -> None:
    """Every stage's rate against its operations a byte, under the measured ceilings."""
    rows, copy = result["rows"], result["copy_bytes_per_second"]
    peak = result["matmul_flops_per_second"]
    intensities = [row["flop_per_byte"] for row in rows]
    rates = [row["flop_per_s"] for row in rows]
    left, right = min(peak / copy, *intensities) / 4, 4 * max(peak / copy, *intensities)
    axes.plot([left, peak / copy], [left * copy, peak], color=INK, linewidth=1.5)
    axes.annotate(f"copy {copy / 1e9:.0f} GB/s", (left, left * copy), (6, 0), **OFFSET)
    for name, rate in result["products_flop_per_s"].items():
        is_peak = rate == peak
        axes.plot(
            [rate / copy, right], [rate, rate], color=INK if is_peak else FAINT, linewidth=1.5
        )
        above = (6, 4) if is_peak else (6, -11)
        axes.annotate(f"{name} {scaled(rate)}", (rate / copy, rate), above, **OFFSET)
    for i, row in enumerate(rows):
        axes.plot(
            row["flop_per_byte"],
            row["flop_per_s"],
            marker="osD^vPX*"[i % 8],
            linestyle="none",
            markersize=7,
            color=COLOURS[i % len(COLOURS)],
            label=f"{row['stage']}: {row['share_of_floor']:.0%} of the floor",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(min(left * copy, *rates) / 2, 3 * peak)
    axes.set_xlabel("operations a byte that has to be moved")
    axes.set_ylabel("FLOP/s")
    axes.grid(color=FAINT, linewidth=0.5)
    axes.legend(loc="lower right")


OFFSET: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
FIGURES: dict[str, tuple[str, Draw, tuple[float, float]]] = {
    "peers.svg": ("peers_small.json", peers, (8, 4.5)),
    "roofline.svg": ("roofline.json", roofline, (8, 5)),
}


def scaled(rate: float) -> str:
    return f"{rate / 1e12:.0f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"


def drawn(draw: Draw, result: dict[str, Any], size: tuple[float, float]) -> bytes:
    """The figure as SVG, the same bytes for the same result."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), io.BytesIO() as file:
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot(), result)
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator"))
        )
        return file.getvalue()


def changed(results: Path, out: Path) -> dict[Path, bytes]:
    """Of the figures whose results are there those that differ from their files, drawn anew."""
    found = {}
    for name, (source, draw, size) in FIGURES.items():
        if (results / source).is_file():
            image = drawn(draw, json.loads((results / source).read_text()), size)
            target = out / name
            if not target.is_file() or target.read_bytes() != image:
                found[target] = image
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    try:
        found = changed(options.results, options.out)
    except ImportError as error:
        parser.error(f"{error}: pip install 'dtg-restore[bench]'")
    for target, image in found.items():
        print(f"{target} {'would change' if options.check else 'is drawn anew'}")
        if not options.check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image)
    sys.exit(int(options.check and bool(found)))


if __name__ == "__main__":
    main()
