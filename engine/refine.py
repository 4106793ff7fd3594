"""Stage one: lookahead-guided refinement of one chunk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

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
from .report import Clock, laps_of
from .reuse import Reuse
from .runtimes.graph import GraphBackbone
from .runtimes.loop import SamplingLoop, why_stepwise
from .schedule import Node, alpha_max, nodes, unstable
from .transfer import brought
from .types import Chunk, StepInfo, Tile

logger = logging.getLogger("dtg_restore")

# Runs that share a backbone, perhaps in several threads, take turns at it: waiting weights and the
# memory of graphs serve one pass at a time.
_turns: WeakKeyDictionary[Backbone, RLock] = WeakKeyDictionary()


class Refiner:
    """A backbone and its codec with their settings, ready to refine the chunks of one clip.

    `clock` hears how long the parts of a chunk took.
    """

    def __init__(
        self,
        backbone: Backbone,
        codec: Codec,
        config: RestoreConfig,
        plan: Plan,
        clock: Clock | None = None,
    ):
        facts = backbone.facts
        self._backbone, self._codec = backbone, codec
        self._turn = _turns.setdefault(backbone, RLock())
        self._plan, self._seed = plan, config.seed
        self._color_match = config.color_match
        self._clock = clock or Clock()
        dtg = config.dtg(facts.defaults)
        self._nodes = nodes(dtg)
        _warn_if_unstable(self._nodes)
        self._attend = backbone.attend
        if self._attend is not None:
            self._attend.begin()
        with self._turn:
            context = backbone.prepare(
                facts.prompt if config.prompt is None else config.prompt,
                facts.negative_prompt if config.negative_prompt is None else config.negative_prompt,
                self._nodes,
            )
        cell = codec.facts.pixels
        tiles = [Tile(*(side // cell for side in tile)) for tile in plan.tiles]
        height, width = (side // cell for side in plan.padded_size)
        self._reuse = Reuse(
            *(Elision(config.elide_tol), config.reuse_tol, config.cache_tol),
            *(facts.cycle, facts.experts),
        )
        self._branch_plan = BranchPlan(
            config.branches, model_key(backbone.facts, config), backbone.device
        )
        branches = partial(
            TiledBranches,
            context=context,
            nodes=self._nodes,
            tiles=tiles,
            size=(height, width),
            tile_batch=plan.tile_batch,
            plan=self._branch_plan,
        )
        self._branches = branches(backbone, reuse=self._reuse)
        loop = partial(SamplingLoop, self._branches, self._nodes, dtg.solver)
        reasons = why_stepwise(backbone, config, plan)
        if isinstance(backbone, GraphBackbone) and not reasons:
            plain = branches(backbone.plain, reuse=Reuse(Elision(0.0)))
            self._loop = loop(plain, backbone.capture)
        else:
            self._loop = loop(reasons=reasons)

    def describe(self) -> dict[str, Any]:
        """What was evaluated, as plain data: the backbone's passes over whole chunks by branch,
        those that were saved and the largest estimated errors of it, how branches were called, what
        computed attention, and what was recorded and replayed.
        """
        reuse, backbone = self._reuse.describe(), self._backbone
        elision = reuse["elision"]
        passes = backbone.describe() if isinstance(backbone, GraphBackbone) else None
        return {
            "evaluations": {n: self._all(k) for n, k in self._branches.evaluations.items()},
            **reuse,
            "elision": elision | {"weightless": self._all(elision["weightless"])},
            "branches": self._branch_plan.describe(),
            "attention": self._attend and self._attend.describe(),
            "runtime": {
                "name": self._runtime_name(passes is not None),
                "passes": passes,
                "loops": self._loop.describe(),
            },
        }

    def _runtime_name(self, records: bool) -> str:
        """What executed the passes: engines where there are some of the plan's shape."""
        if self._plan.bucket is not None:
            return self._backbone.facts.runtime
        return "graph" if records else "eager"

    def _all(self, count: int) -> int:
        """What was counted in the chunks that went step by step, for the replayed ones as well:
        where loops are replayed, every chunk is evaluated alike."""
        stepwise, replayed = self._loop.num_stepwise, self._loop.num_replayed
        return count + count * replayed // stepwise if replayed else count

    @torch.inference_mode()
    def __call__(
        self, frames: Tensor, chunk: Chunk, on_step: Callable[[StepInfo], None] | None = None
    ) -> Tensor:
        """Refine the frames (T, 3, H, W) of `chunk`; the same shape comes back, in [0, 1].

        OutOfMemory, with a tile that should fit, where the device's memory does not suffice.
        """
        count, _, height, width = frames.shape
        laps = laps_of(self._backbone.device)
        with self._turn, named_out_of_memory(self._plan.smaller_tile, "refine"):
            laps.mark()
            z = self._encode(frames)
            t = self._nodes[0].t
            first = chunk.start // self._codec.facts.frames  # on the clip's grid of latent frames
            noise = gaussian_noise(self._seed, first, *_axes(z), device=z.device)
            x = ((1 - t) * z + t * noise).contiguous()  # as z may not be, and the kernels demand
            laps.mark()
            with self._backbone.on_device():
                x = self._loop(x, on_step)
            laps.mark()
            slices = list(brought(self._codec.decode(x), frames.device))
            laps.mark()
            self._clock.add_parts("refine", ("encode", "sample", "decode"), laps.times())
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
