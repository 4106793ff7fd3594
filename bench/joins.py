"""Where chunks join: is a step, a softening or a shift of brightness seen there?

    python -m dtg_restore.bench.joins --data DATA --out bench/results/joins_mini.json

Chunks of degraded clips with ground truth are refined once for every overlap, and then mixed by
every fade.  A *handover* is the steps from one frame to the next over which a chunk takes over from
the one before: with an overlap of n frames there are n + 1 of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..engine.blend import fade
from ..engine.refine import Refiner
from ..engine.restorer import Restorer
from ..engine.tiling import ChunkGrid
from ..engine.types import Chunk
from .command import clip_parser, store
from .material import held_out
from .metrics import luma, mean_steps, psnr, sharpness, temporal_error
from .provenance import provenance
from .quality import Clip, Settings, mean_scores

logger = logging.getLogger("dtg_restore")

Fade = Callable[[int], Tensor]  # a count of frames to the weights of the later chunk
Parts = list[tuple[Chunk, Tensor]]
SETTINGS: dict[str, Settings] = {
    "default": {},
    "strong": {"t_start": 0.4, "steps": 6, "alpha0": 2.0, "alpha_clip": True},
}
OVERLAPS = (0, 2, 4, 8)


def linear(count: int) -> Tensor:
    return torch.arange(1.0, count + 1, dtype=torch.float64) / (count + 1)


def raised_cosine(count: int) -> Tensor:
    return (1 - torch.cos(math.pi * linear(count))) / 2


def hard(count: int) -> Tensor:
    return (linear(count) >= 0.5).double()


FADES: dict[str, Fade] = {
    "hard cut": hard,
    "linear": linear,
    "raised cosine": raised_cosine,
    "quintic (ours)": fade,
}


# -- of finished frames ---------------------------------------------------------------------------


def handovers(grid: ChunkGrid, num_frames: int) -> list[slice]:
    """The steps n -> n + 1, by n, of the handover to every chunk but the first."""
    starts = [chunk.start for chunk in grid.touching(0, num_frames, num_frames)[1:]]
    return [slice(start - 1, min(start + grid.overlap, num_frames - 1)) for start in starts]


def seams(frames: Tensor, source: Tensor, grid: ChunkGrid) -> dict[str, float]:
    """What shows of the joins in restored frames (T, 3, H, W) of `source`.

    Returns
    -------
    `step` : the mean change of luma from frame to frame over that of the source, in handovers over
        the same elsewhere; about 1 where no join shows.
    `largest_step` : the same of the largest change in each handover.
    `pulse` : mean difference of brightness between neighbouring chunks that the source does not
        have, in 8-bit code values; chunks are parted in the middle of the handover.
    """
    joins = handovers(grid, len(frames))
    ratio = mean_steps(luma(frames)) / mean_steps(luma(source))
    elsewhere = torch.ones(len(ratio), dtype=torch.bool)
    for join in joins:
        elsewhere[join] = False
    usual = ratio[elsewhere].mean()
    added = 255 * (luma(frames) - luma(source)).mean(dim=(-2, -1))
    middles = [join.start + 1 + grid.overlap // 2 for join in joins]
    levels = [added[a:b].mean() for a, b in pairwise([0, *middles, len(added)])]
    return {
        "step": (torch.cat([ratio[join] for join in joins]).mean() / usual).item(),
        "largest_step": (torch.stack([ratio[j].max() for j in joins]).mean() / usual).item(),
        "pulse": float(torch.stack(levels).diff().abs().mean()),
    }


# -- of chunks and their mix ----------------------------------------------------------------------


def chunks(frames: Tensor, grid: ChunkGrid) -> Parts:
    """The chunks of a clip, each with its frames as they are."""
    cut = grid.touching(0, len(frames), len(frames))
    return [(chunk, frames[chunk.start : chunk.stop]) for chunk in cut]


def refined(restorer: Restorer, frames: Tensor) -> Parts:
    """Every chunk of the clip by itself."""
    plan = restorer.plan(*frames.shape[-2:])
    assert plan and restorer.backbone and restorer.codec
    refiner = Refiner(restorer.backbone, restorer.codec, restorer.config, plan)
    return [(chunk, refiner(part, chunk)) for chunk, part in chunks(frames, plan.grid)]


def score_join(before: Tensor, after: Tensor, weights: Tensor, clean: Tensor) -> dict[str, float]:
    """Measures of one handover over n shared frames.

    Parameters
    ----------
    before : (n + 1, 3, H, W), the frame before the shared ones, and these; by the earlier chunk.
    after : (n + 1, 3, H, W), the shared frames and the one behind them; by the later chunk.
    weights : (n,) of the later chunk.
    clean : (n + 2, 3, H, W), the truth of all of them.

    Returns
    -------
    `own_step`, `largest_own_step` : the mean, and the largest, of the luma's steps over those that
        the chunks have in the same places; above 1 there is a seam.
    `sharpness` : of the mixed frames over that of the chunks; below 1 they are softer, or double.
    `temporal_error`, `psnr` : of the handover and of the shared frames, against the truth.
    """
    w = weights.float()
    mixed = torch.lerp(before[1:], after[:-1], w[:, None, None, None])
    frames = torch.cat((before[:1], mixed, after[-1:]))
    # The chunks' own steps in the same places, weighted as the frames are.
    late = torch.cat((w[:1] * 0, (w[1:] + w[:-1]) / 2, w[:1] * 0 + 1))
    own = torch.lerp(
        torch.cat((mean_steps(luma(before)), torch.zeros(1))),
        torch.cat((torch.zeros(1), mean_steps(luma(after)))),
        late,
    )
    ratio = mean_steps(luma(frames)) / own
    sharp = torch.lerp(sharpness(luma(before[1:])), sharpness(luma(after[:-1])), w)
    return {
        "own_step": ratio.mean().item(),
        "largest_own_step": ratio.max().item(),
        "sharpness": (sharpness(luma(mixed)) / sharp).mean().item(),
        "temporal_error": temporal_error(frames, clean),
        "psnr": psnr(mixed, clean[1:-1]),
    }


def mixed(parts: Parts, overlap: int, weights: Tensor) -> Tensor:
    """The frames of the clip, as `pipeline.join` makes them, by any fade."""
    w = weights.float()[:, None, None, None]
    frames = parts[0][1]
    for chunk, later in parts[1:]:
        earlier, shared = (
            frames[: chunk.start],
            torch.lerp(frames[chunk.start :], later[:overlap], w),
        )
        frames = torch.cat((earlier, shared, later[overlap:]))
    return frames


def whole_joins(parts: Parts, overlap: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """`before` and `after` of `score_join` for every join, and the frames of the clip it covers."""
    for (_, earlier), (chunk, later) in pairwise(parts):
        shown = slice(chunk.start - 1, chunk.start + overlap + 1)
        yield earlier[-overlap - 1 :], later[: overlap + 1], shown


def rows_of(
    restorer: Restorer, clips: list[Clip], name: str, overlap: int
) -> Iterator[dict[str, Any]]:
    """One row a fade; without an overlap there is nothing to mix, and so one row of the frames."""
    restorer = restorer.configure(overlap=overlap, tile=(0, 0), **SETTINGS[name])
    parts = {clip.name: refined(restorer, clip.degraded) for clip in clips}
    plan = restorer.plan(*clips[0].clean.shape[-2:])
    assert plan
    facts = {"settings": name, "overlap": overlap}
    for kind, weights in FADES.items() if overlap else [("none", fade)]:
        w = weights(overlap)
        whole = mean_scores(
            seams(mixed(parts[clip.name], overlap, w), clip.degraded, plan.grid) for clip in clips
        )
        scores = [
            score_join(before, after, w, clip.clean[shown])
            for clip in clips
            for before, after, shown in whole_joins(parts[clip.name], overlap)
            if overlap
        ]
        yield facts | {"fade": kind} | whole | (mean_scores(scores) if scores else {})
    if overlap:
        yield facts | {"fade": "fitted", "weights": fitted(parts, clips, overlap)}


def fitted(parts: dict[str, Parts], clips: list[Clip], overlap: int) -> list[float]:
    """The weights of the later chunk that bring the shared frames nearest to the truth."""
    up, down = torch.zeros(overlap), torch.zeros(overlap)
    for clip in clips:
        for before, after, shown in whole_joins(parts[clip.name], overlap):
            early, gap = before[1:], after[:-1] - before[1:]
            up += ((clip.clean[shown][1:-1] - early) * gap).sum(dim=(1, 2, 3))
            down += gap.square().sum(dim=(1, 2, 3))
    return [round(weight, 3) for weight in (up / down).tolist()]


def run(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    restorer = Restorer.load(backbone=args.backbone, sr="none")
    clips = [
        Clip(name, clean, "severe")
        for name, clean in held_out(args.data, args.frames, (args.size, args.size))
        if len(clean) == args.frames
    ]
    rows = []
    for name in SETTINGS:
        for overlap in OVERLAPS:
            for row in rows_of(restorer, clips, name, overlap):
                rows.append(row)
                logger.info(json.dumps(row))
    return {
        "provenance": provenance(),
        "backbone": args.backbone,
        "settings": SETTINGS,
        "frames": args.frames,
        "size": args.size,
        "clips": [clip.name for clip in clips],
        "rows": rows,
    }


def main() -> None:
    store(clip_parser(__doc__, frames=40, size=64), run)


if __name__ == "__main__":
    main()
