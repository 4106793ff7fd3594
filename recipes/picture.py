"""Make the before / after picture of the README.

    python recipes/picture.py assets/demo.mp4 out/demo_restored.mp4 docs/before_after.png

Left: frames of the first clip, enlarged to the size of the second; right: the second clip's.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.media import open_reader, open_writer
from dtg_restore.engine.types import ColourTags


def frames_of(path: Path, wanted: list[int]) -> list[Tensor]:
    with open_reader(path) as reader:
        return [frame for i, frame in enumerate(reader) if i in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[7, 36])
    args = parser.parse_args()

    rows = []
    pairs = zip(
        frames_of(args.before, args.frames), frames_of(args.after, args.frames), strict=True
    )
    for before, after in pairs:
        enlarged = F.interpolate(before[None], after.shape[-2:], mode="bicubic")[0].clamp(0, 1)
        gap = torch.ones(3, after.shape[-2], 8)
        rows.append(torch.cat((enlarged, gap, after), dim=-1))
    picture = torch.cat(rows, dim=-2)
    _, height, width = picture.shape
    folder = args.picture.with_suffix("")
    with open_writer(
        f"{folder}/%d.png", width=width, height=height, fps=Fraction(1), colour=ColourTags()
    ) as writer:
        writer.write(picture)
    (folder / "0.png").replace(args.picture)
    folder.rmdir()


if __name__ == "__main__":
    main()
