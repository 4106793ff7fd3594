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

from . import tables_media as media
from . import tables_quality as quality
from . import tables_speed as speed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


class Table(NamedTuple):
    page: str
    file: str
    draw: Callable[[dict[str, Any]], str]


README, SPEED, EXPORT = "README.md", "docs/SPEED.md", "docs/EXPORT.md"
QUALITY, MEDIA = "docs/QUALITY.md", "docs/MEDIA.md"
PAGES = (README, SPEED, EXPORT, QUALITY, MEDIA)
TABLES = {
    "quality": Table(README, "quality_mini.json", quality.quality),
    "super-resolution": Table(README, "sr_mini.json", quality.super_resolution),
    "peers": Table(README, "peers_small.json", speed.peers),
    "mini": Table(README, "peers_mini.json", speed.mini),
    "wan-memory": Table(README, "wan_memory.json", speed.wan_memory),
    "codec": Table(SPEED, "codec_wan.json", speed.codec),
    "runtimes": Table(SPEED, "runtimes_mini.json", speed.runtimes),
    "caching": Table(SPEED, "caching_mini.json", speed.caching),
    "roofline": Table(SPEED, "roofline.json", speed.roofline),
    "step": Table(SPEED, "step.json", speed.step),
    "kernels": Table(SPEED, "kernels.json", speed.kernels),
    "throughput": Table(SPEED, "throughput_mini.json", speed.throughput),
    "engines-mini": Table(EXPORT, "engines_mini.json", speed.engines),
    "engines-wan": Table(EXPORT, "engines_wan.json", speed.engines),
    "media-video": Table(MEDIA, "media.json", media.video),
    "media-streams": Table(MEDIA, "media.json", media.streams),
    "media-pictures": Table(MEDIA, "media.json", media.pictures),
    "shots": Table(MEDIA, "shots.json", quality.shots),
    "joins": Table(QUALITY, "joins_mini.json", quality.joins),
    "fitted": Table(QUALITY, "joins_mini.json", quality.fitted),
    "color": Table(QUALITY, "color_mini.json", quality.color),
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
