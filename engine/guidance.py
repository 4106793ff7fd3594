"""Both branches of guidance on a chunk: tiles gathered, evaluated together, blended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .backbones.base import Backbone, Context
from .blend import tile_windows
from .branches import BATCHED, SEQUENTIAL, BranchPlan
from .reuse import Reuse
from .schedule import Node
from .tiling import batches
from .types import Tile


class TiledBranches:
    """Callable (x, node index) -> (v_cond, v_uncond) for `sampler.sample`.

    `tiles` and `size` (height, width) are in cells of x.  Every call evaluates all tiles and blends
    their velocities; as the step is linear in the velocity, that equals blending the tiles of the
    next x.  `reuse` says which branches are evaluated and gives what is not; where both are, it is
    together or one after the other as `plan` says.  `evaluations` counts the forward passes over
    the whole frame, by branch.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Context,
        nodes: Sequence[Node],
        tiles: list[Tile],
        size: tuple[int, int],
        tile_batch: int,
        reuse: Reuse,
        plan: BranchPlan,
    ):
        self._backbone, self._context, self._nodes = backbone, context, nodes
        self._tiles, self._tile_batch = tiles, tile_batch
        self._reuse, self._plan = reuse, plan
        self._windows = tile_windows(tiles, *size, backbone.device)
        self.evaluations: Counter[str] = Counter()

    def __call__(self, x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        node = self._nodes[index]
        if index == 0:
            self._reuse.begin()
        names = self._reuse.needed(index, node)
        self.evaluations.update(names)
        if not names:
            return self._reuse.complete(index, node, [])
        blended = [torch.zeros_like(x) for _ in names]
        pairs = list(zip(self._tiles, self._windows, strict=True))
        for group in batches(pairs, self._tile_batch):
            for velocities, total in zip(
                self._evaluate(x, index, names, group), blended, strict=True
            ):
                for (tile, window), velocity in zip(group, velocities, strict=True):
                    _view(total, tile).addcmul_(velocity[None], window)
        return self._reuse.complete(index, node, blended)

    def _evaluate(
        self, x: Tensor, index: int, names: tuple[str, ...], group: list[tuple[Tile, Tensor]]
    ) -> tuple[Tensor, ...]:
        """The velocities of the tiles of `group` for each of `names`."""
        cut = torch.cat([_view(x, tile) for tile, _ in group])
        ways: dict[str, Callable[[], tuple[Tensor, ...]]] = {
            BATCHED: lambda: self._call(cut, index, names),
            SEQUENTIAL: lambda: tuple(self._call(cut, index, (n,))[0] for n in names),
        }
        way = self._plan.way(tuple(cut.shape), ways) if len(names) == 2 else BATCHED
        return ways[way]()

    def _call(self, cut: Tensor, index: int, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """One call for all `names`; each sample has its own time."""
        node, count = self._nodes[index], len(cut)
        times = {"cond": node.t, "uncond": node.tau}
        t = torch.tensor([times[n] for n in names], device=cut.device).repeat_interleave(count)
        condition = self._context.at(index, names, count)
        batch = cut if len(names) == 1 else cut.repeat(len(names), 1, 1, 1, 1)
        return self._backbone.velocity(batch, t, condition).split(count)


def _view(x: Tensor, tile: Tile) -> Tensor:
    return x[..., tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
