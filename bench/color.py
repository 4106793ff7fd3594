"""How far colours drift from the input, in every frame and where chunks join, by colour match.

    python -m dtg_restore.bench.color --data DATA --out bench/results/color_mini.json

Real clips are degraded first, so that the refinement has work and there is a truth; generated ones
are taken as they are.  A drift is the difference of a channel's mean between a restored frame and
the input, in 8-bit code values.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..engine.config import COLOR_MATCHES
from ..engine.restorer import Restorer
from ..engine.tiling import ChunkGrid
from .command import clip_parser, store
from .joins import SETTINGS, handovers, seams
from .material import generated, held_out
from .metrics import psnr
from .provenance import provenance
from .quality import Clip, mean_scores

logger = logging.getLogger("dtg_restore")


def drifts(frames: Tensor, source: Tensor, grid: ChunkGrid) -> dict[str, float]:
    """Of frames (T, 3, H, W) against their input.

    Returns
    -------
    `drift` : of the channel that drifts most, mean of the frames.
    `largest_drift` : the same of the frame that drifts most.
    `join_change`, `other_change` : by how much the drift changes from a frame to the next, mean of
        channels and frames, in handovers from chunk to chunk and elsewhere.
    """
    drift = 255 * (frames - source).mean(dim=(-2, -1))  # (T, 3)
    change = drift.diff(dim=0).abs().mean(dim=1)
    elsewhere = torch.ones(len(change), dtype=torch.bool)
    for join in handovers(grid, len(frames)):
        elsewhere[join] = False
    by_frame = drift.abs().amax(dim=1)
    return {
        "drift": by_frame.mean().item(),
        "largest_drift": by_frame.max().item(),
        "join_change": change[~elsewhere].mean().item(),
        "other_change": change[elsewhere].mean().item(),
    }


def score(restorer: Restorer, source: Tensor, clean: Tensor | None) -> dict[str, float]:
    """Drifts of one clip, seams, and the PSNR to the truth and to the input."""
    frames = torch.as_tensor(restorer.restore(source))
    plan = restorer.plan(*source.shape[-2:])
    assert plan
    measures = drifts(frames, source, plan.grid) | seams(frames, source, plan.grid)
    measures["psnr_to_input"] = psnr(frames, source)
    return measures | ({} if clean is None else {"psnr": psnr(frames, clean)})


def clips_of(args: argparse.Namespace) -> dict[str, list[tuple[Tensor, Tensor | None]]]:
    """(input, truth or None) of every clip, by kind."""
    size = (args.size, args.size)
    real = [
        Clip(name, clean, "severe")
        for name, clean in held_out(args.data, args.frames, size)
        if len(clean) == args.frames
    ]
    return {
        "real, degraded": [(clip.degraded, clip.clean) for clip in real],
        "generated": [(frames, None) for _, frames in generated(args.data, args.frames, size)],
    }


def rows_of(restorer: Restorer, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for kind, clips in clips_of(args).items():
        for name, settings in SETTINGS.items():
            for method in COLOR_MATCHES:
                run = restorer.configure(color_match=method, **settings)
                facts = {"clips": kind, "number": len(clips), "settings": name, "method": method}
                yield facts | mean_scores(score(run, *clip) for clip in clips)


def run(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    rows = []
    restorer = Restorer.load(backbone=args.backbone, sr="none", shots="none")
    for row in rows_of(restorer, args):
        rows.append(row)
        logger.info(json.dumps(row))
    facts = {"backbone": args.backbone, "frames": args.frames, "size": args.size}
    return {"provenance": provenance(), "settings": SETTINGS, **facts, "rows": rows}


def main() -> None:
    store(clip_parser(__doc__, frames=28, size=96), run)


if __name__ == "__main__":
    main()
