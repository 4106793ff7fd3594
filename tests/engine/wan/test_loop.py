"""The sampling loop of Wan as one graph, with a recorder in the place of CUDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.graph import GraphBackbone


def test_replays_equal_steps(model: Path, clip: Callable[..., Tensor], recorder: Any) -> None:
    """The host takes no part in a pass, and nothing is left of the chunk before."""
    plain = Restorer.load(
        **{"backbone": str(model), "prompt_embeds": str(model / "prompts.safetensors")},
        **{"sr": "none", "device": "cpu", "steps": 3, "t_start": 0.6, "chunk": 5, "overlap": 1},
    )
    assert plain.backbone is not None
    recording = GraphBackbone(plain.backbone, lambda: recorder)
    frames = clip(13, 32, 48)
    want = plain.restore(frames)
    run = replace(plain, backbone=recording).run((32, 48))
    assert torch.equal(torch.stack(list(run.frames(frames, 0, None))), want)
    loops = run.report()["runtime"]["loops"]
    assert loops == {"recorded": 1, "replayed": 2, "stepwise": 1, "refused": []}
