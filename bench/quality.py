"""Restoration quality of a backbone on clips with ground truth.

    python -m dtg_restore.bench.quality table --data DATA --out bench/results/quality_mini.json
    python -m dtg_restore.bench.quality sweep --data DATA --out bench/results/sweep_mini.json

`table` compares the guidance schedules, classifier-free guidance and SDEdit at the default
settings; `sweep` varies these settings.  Every method sees the same degraded clips and noise.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.backbones import facts_of
from ..engine.config import DTG
from ..engine.restorer import Restorer
from .command import clip_parser, store
from .degrade import LEVELS, Distortion, degrade
from .material import held_out
from .metrics import block_step, psnr, temporal_error
from .provenance import provenance

logger = logging.getLogger("dtg_restore")

Settings = dict[str, Any]
METHODS: dict[str, Settings] = {
    "SDEdit": {"guidance": "none"},
    "CFG": {"guidance": "cfg"},
    "DTG constant": {"schedule": "constant"},
    "DTG linear": {"schedule": "linear"},
    "DTG cosine": {"schedule": "cosine"},
    "DTG exponential": {"schedule": "exponential"},
}


class Clip:
    """A clean clip and its degradation, drawn from the clip's name and the level alone."""

    def __init__(self, name: str, clean: Tensor, level: str):
        seed = [*name.encode(), *level.encode()]
        rng = np.random.default_rng(seed)
        self.name, self.clean = name, clean
        self.degraded = degrade(clean, Distortion.sample(LEVELS[level], rng), rng)

    def score(self, frames: Tensor) -> dict[str, float]:
        return {
            "psnr": psnr(frames, self.clean),
            "temporal_error": temporal_error(frames, self.clean),
            "block_step": block_step(frames),
        }


def mean_scores(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(scores)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def evaluate(restorer: Restorer, clips: list[Clip], settings: Settings) -> dict[str, Any]:
    """One row: the settings, the mean scores and those of every clip."""
    run = restorer.configure(**settings)
    scores = {clip.name: clip.score(torch.as_tensor(run.restore(clip.degraded))) for clip in clips}
    return {"settings": settings, **mean_scores(scores.values()), "clips": scores}


def sweep_settings(defaults: DTG) -> Iterator[Settings]:
    """Guidance by start, steps by start, then every other setting around the defaults."""
    for t_start in (0.06, 0.1, 0.16, 0.25):
        yield {"t_start": t_start, "guidance": "none"}
        yield {"t_start": t_start, "guidance": "cfg"}
        for alpha0 in (1.2, 1.35, 2.0):
            yield {"t_start": t_start, "alpha0": alpha0}
        for steps in (3, 4):
            yield {"t_start": t_start, "steps": steps}
    for changes in (
        {"schedule": "cosine"},
        {"schedule": "linear"},
        {"schedule": "constant"},
        {"kappa": 2.0},
        {"kappa": 8.0},
        {"delta0": 0.05},
        {"delta0": 0.1},
        {"steps": 1},
        {"steps": 8},
        {"solver": "heun"},
        {"space": "velocity", "tau_floor": 0.25},
        {"alpha0": 2.0, "alpha_clip": True},
        {"negative_prompt": "degraded"},
        {"shift": 2.0},
    ):
        yield {"t_start": defaults.t_start, **changes}


def run(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    restorer = Restorer.load(backbone=args.backbone, sr="none")
    clips = [
        Clip(name, clean, args.level)
        for name, clean in held_out(args.data, args.frames, (args.size, args.size))
    ]
    defaults = facts_of(args.backbone).defaults
    rows = [{"method": "input", **mean_scores(c.score(c.degraded) for c in clips)}]
    if args.what == "table":
        todo = [{"method": name, **settings} for name, settings in METHODS.items()]
    else:
        todo = [{"method": "sweep", **settings} for settings in sweep_settings(defaults)]
    for settings in todo:
        name = settings.pop("method")
        rows.append({"method": name, **evaluate(restorer, clips, settings)})
        line = {key: value for key, value in rows[-1].items() if key != "clips"}
        logger.info(json.dumps(line))
    return {
        "provenance": provenance(),
        "backbone": args.backbone,
        "defaults": asdict(defaults),
        "level": args.level,
        "frames": args.frames,
        "size": args.size,
        "clips": [clip.name for clip in clips],
        "rows": rows,
    }


def main() -> None:
    parser = clip_parser(__doc__, frames=16, size=96)
    parser.add_argument("what", choices=("table", "sweep"))
    parser.add_argument("--level", choices=tuple(LEVELS), default="severe")
    store(parser, run)


if __name__ == "__main__":
    main()
