"""Both branches of guidance on a chunk: tiles gathered, evaluated together, blended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .backbones.base import Backbone, Context
from .blend import tile_windows
from .branches import BATCHED, SEQUENTIAL, BranchPlan
from .elision import Elision
from .schedule import Node
from .tiling import batches
from .types import Tile


class TiledBranches:
    """Callable (x, node index) -> (v_cond, v_uncond) for `sampler.sample`.

    `tiles` and `size` (height, width) are in cells of x.  Every call evaluates all tiles and blends
    their velocities; as the step is linear in the velocity, that equals blending the tiles of the
    next x.  The unconditional branch is evaluated unless `elision` leaves it out, together with the
    other one or after it as `plan` says.  `evaluations` counts the forward passes over the whole
    frame, by branch.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Context,
        nodes: Sequence[Node],
        tiles: list[Tile],
        size: tuple[int, int],
        tile_batch: int,
        elision: Elision,
        plan: BranchPlan,
    ):
        self._backbone, self._context, self._nodes = backbone, context, nodes
        self._tiles, self._tile_batch = tiles, tile_batch
        self._elision, self._plan = elision, plan
        self._windows = tile_windows(tiles, *size, backbone.device)
        times = {"cond": [node.t for node in nodes], "uncond": [node.tau for node in nodes]}
        # On the device: a copy from the host would keep the loop from being recorded.
        self._times = {n: torch.tensor(row, device=backbone.device) for n, row in times.items()}
        self.evaluations: Counter[str] = Counter()

    def __call__(self, x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        node = self._nodes[index]
        if index == 0:
            self._elision.begin()
        names = ("cond",) if self._elision.leaves_out(node) else ("cond", "uncond")
        self.evaluations.update(names)
        blended = [torch.zeros_like(x) for _ in names]
        pairs = list(zip(self._tiles, self._windows, strict=True))
        for group in batches(pairs, self._tile_batch):
            for velocities, total in zip(
                self._evaluate(x, index, names, group), blended, strict=True
            ):
                for (tile, window), velocity in zip(group, velocities, strict=True):
                    _view(total, tile).addcmul_(velocity[None], window)
        if len(names) == 1:
            return blended[0], None
        self._elision.measure(node, *blended)
        return blended[0], blended[1]

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
        count = len(cut)
        t = torch.cat([self._times[n][index].expand(count) for n in names])
        condition = self._context.at(index, names, count)
        batch = cut if len(names) == 1 else cut.repeat(len(names), 1, 1, 1, 1)
        return self._backbone.velocity(batch, t, condition).split(count)


def _view(x: Tensor, tile: Tile) -> Tensor:
    return x[..., tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
