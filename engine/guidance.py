"""Both branches of guidance on a chunk: tiles gathered, evaluated together, blended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from .backbones.base import Backbone, Context
from .blend import tile_windows
from .schedule import Node
from .tiling import batches
from .types import Tile


class TiledBranches:
    """Callable (x, node index) -> (v_cond, v_uncond) for `sampler.sample`.

    `tiles` and `size` (height, width) are in cells of x.  Every call evaluates all tiles and blends
    their velocities; as the step is linear in the velocity, that equals blending the tiles of the
    next x.  A branch whose weight is zero is not evaluated.  `evaluations` counts the forward
    passes over the whole frame, by branch.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Context,
        nodes: Sequence[Node],
        tiles: list[Tile],
        size: tuple[int, int],
        tile_batch: int,
    ):
        self._backbone, self._context, self._nodes = backbone, context, nodes
        self._tiles, self._tile_batch = tiles, tile_batch
        self._windows = tile_windows(tiles, *size, backbone.device)
        self.evaluations: Counter[str] = Counter()

    def __call__(self, x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        node = self._nodes[index]
        names = ("cond", "uncond") if node.w_uncond != 0 else ("cond",)
        self.evaluations.update(names)
        blended = [torch.zeros_like(x) for _ in names]
        pairs = list(zip(self._tiles, self._windows, strict=True))
        for group in batches(pairs, self._tile_batch):
            for velocities, total in zip(
                self._evaluate(x, index, names, group), blended, strict=True
            ):
                for (tile, window), velocity in zip(group, velocities, strict=True):
                    _view(total, tile).addcmul_(velocity[None], window)
        return blended[0], blended[1] if len(names) == 2 else None

    def _evaluate(
        self, x: Tensor, index: int, names: tuple[str, ...], group: list[tuple[Tile, Tensor]]
    ) -> tuple[Tensor, ...]:
        """One batched call for all `names` and tiles; each sample has its own time."""
        node, count = self._nodes[index], len(group)
        times = {"cond": node.t, "uncond": node.tau}
        cut = torch.cat([_view(x, tile) for tile, _ in group])
        t = torch.tensor([times[n] for n in names], device=x.device).repeat_interleave(count)
        condition = self._context.at(index, names, count)
        return self._backbone.velocity(cut.repeat(len(names), 1, 1, 1, 1), t, condition).split(
            count
        )


def _view(x: Tensor, tile: Tile) -> Tensor:
    return x[..., tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
