"""Stage one: lookahead-guided refinement of one chunk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..kernels import color_match, gaussian_noise
from .backbones.base import Backbone
from .blend import reflect_index, reflect_pad
from .branches import BranchPlan, model_key
from .codecs.base import Codec
from .config import RestoreConfig
from .devices import named_out_of_memory
from .elision import Elision
from .guidance import TiledBranches
from .plan import Plan
from .sampler import sample
from .schedule import Node, alpha_max, nodes, unstable
from .types import Chunk, StepInfo, Tile

logger = logging.getLogger("dtg_restore")


class Refiner:
    """A backbone and its codec with their settings, ready to refine the chunks of one clip."""

    def __init__(self, backbone: Backbone, codec: Codec, config: RestoreConfig, plan: Plan):
        facts = backbone.facts
        self._backbone, self._codec = backbone, codec
        self._plan, self._seed = plan, config.seed
        self._color_match = config.color_match
        self._dtg = config.dtg(facts.defaults)
        self._nodes = nodes(self._dtg)
        _warn_if_unstable(self._nodes)
        self._attend = backbone.attend
        if self._attend is not None:
            self._attend.begin()
        context = backbone.prepare(
            facts.prompt if config.prompt is None else config.prompt,
            facts.negative_prompt if config.negative_prompt is None else config.negative_prompt,
            self._nodes,
        )
        cell = codec.facts.pixels
        tiles = [Tile(*(side // cell for side in tile)) for tile in plan.tiles]
        height, width = (side // cell for side in plan.padded_size)
        self._elision = Elision(config.elide_tol)
        self._branch_plan = BranchPlan(
            config.branches, model_key(backbone.facts, config), backbone.device
        )
        self._branches = TiledBranches(
            backbone,
            context,
            self._nodes,
            tiles,
            (height, width),
            plan.tile_batch,
            self._elision,
            self._branch_plan,
        )

    def describe(self) -> dict[str, Any]:
        """What was evaluated, as plain data: the backbone's passes over whole chunks by branch,
        those that were saved and the largest estimated error of it, how branches were called, and
        what computed attention.
        """
        return {
            "evaluations": dict(self._branches.evaluations),
            "elision": self._elision.describe(),
            "branches": self._branch_plan.describe(),
            "attention": self._attend and self._attend.describe(),
        }

    @torch.inference_mode()
    def __call__(
        self, frames: Tensor, chunk: Chunk, on_step: Callable[[StepInfo], None] | None = None
    ) -> Tensor:
        """Refine the frames (T, 3, H, W) of `chunk`; the same shape comes back, in [0, 1].

        OutOfMemory, with a tile that should fit, where the device's memory does not suffice.
        """
        count, _, height, width = frames.shape
        with named_out_of_memory(self._plan.smaller_tile):
            z = self._encode(frames)
            t = self._nodes[0].t
            first = chunk.start // self._codec.facts.frames  # on the clip's grid of latent frames
            noise = gaussian_noise(self._seed, first, *_axes(z), device=z.device)
            x = (1 - t) * z + t * noise
            with self._backbone.on_device():
                x = sample(self._branches, x, self._nodes, self._dtg.solver, on_step)
            slices = [part.to(frames.device) for part in self._codec.decode(x)]
        refined = torch.cat(slices)[:count, :, :height, :width]
        if self._color_match == "none":
            return refined
        return color_match(refined.float(), frames.float(), self._color_match).clamp_(0, 1)

    def _encode(self, frames: Tensor) -> Tensor:
        """z (1, C, t, h, w) of the frames, continued by reflection to sizes the model takes."""
        index = reflect_index(len(frames), self._plan.padded_frames(len(frames))).to(frames.device)
        padded = reflect_pad(frames, *self._plan.padded_size)[index]
        return self._codec.encode(padded)


def _warn_if_unstable(table: list[Node]) -> None:
    outside = unstable(table)
    if outside:
        node = outside[0]
        logger.warning(
            "alpha exceeds its stable maximum at %d of %d steps (%.2f > %.2f at t = %.3f): "
            "guidance adds noise there; alpha_clip clamps it",
            len(outside),
            len(table) - 1,
            node.alpha,
            alpha_max(node.t, node.tau),
            node.t,
        )


def _axes(z: Tensor) -> tuple[int, int, int, int]:
    """(frames, channels, rows, columns) of z (1, C, T, H, W)."""
    _, channels, frames, height, width = z.shape
    return frames, channels, height, width
