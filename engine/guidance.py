"""Both branches of guidance on a chunk: tiles gathered, evaluated together, blended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..kernels import tile_gather
from .backbones.base import Backbone, Context
from .blend import OverlapAdd, TileGrid
from .branches import BATCHED, SEQUENTIAL, BranchPlan
from .reuse import Reuse
from .schedule import Node
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
        self._grid, self._tile_batch = TileGrid(tiles, size, backbone.device), tile_batch
        self._reuse, self._plan = reuse, plan
        times = {"cond": [node.t for node in nodes], "uncond": [node.tau for node in nodes]}
        # On the device: a copy from the host would keep the loop from being recorded.
        self._times = {n: torch.tensor(row, device=backbone.device) for n, row in times.items()}
        self.evaluations: Counter[str] = Counter()

    def __call__(self, x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        node = self._nodes[index]
        if index == 0:
            self._reuse.begin()
        names = self._reuse.needed(index, node)
        self.evaluations.update(names)
        if not names:
            return self._reuse.complete(index, node, [])
        sums = [OverlapAdd(self._grid) for _ in names]
        for origins in self._grid.origins.split(self._tile_batch):
            for velocities, total in zip(
                self._evaluate(x, index, names, origins), sums, strict=True
            ):
                total.add(velocities)
        return self._reuse.complete(index, node, [total.frame() for total in sums])

    def _evaluate(
        self, x: Tensor, index: int, names: tuple[str, ...], origins: Tensor
    ) -> tuple[Tensor, ...]:
        """The velocities of the tiles at `origins` for each of `names`."""
        ways: dict[str, Callable[[], tuple[Tensor, ...]]] = {
            BATCHED: lambda: self._call(x, index, names, origins),
            SEQUENTIAL: lambda: tuple(self._call(x, index, (n,), origins)[0] for n in names),
        }
        shape = (len(origins), *x.shape[1:3], *self._grid.tile)
        way = self._plan.way(shape, ways) if len(names) == 2 else BATCHED
        return ways[way]()

    def _call(
        self, x: Tensor, index: int, names: tuple[str, ...], origins: Tensor
    ) -> tuple[Tensor, ...]:
        """One call for all `names`; each sample has its own time."""
        count = len(origins)
        t = torch.cat([self._times[n][index].expand(count) for n in names])
        condition = self._context.at(index, names, count)
        cut = tile_gather(x, origins, self._grid.tile, len(names))
        return self._backbone.velocity(cut, t, condition).split(count)
