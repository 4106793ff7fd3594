"""Causal 3 x 3 x 3 convolutions of a few frames, by the fastest way of the device.

Frames are (T, C, H, W) in channels-last memory, so that a frame is a matrix (H * W, C).  `past`
holds the two frames before the first; None at the start of a clip, where they are zero and only
the last of the three taps in time has anything to see.

On a CPU in fp32 the Winograd form F(4 x 4, 3 x 3) takes 36 products for 16 pixels instead of 144.
Input d, weight g and output y of a tile relate as

    y = A^T [ sum over taps and channels of (G g G^T) * (B^T d B) ] A

(Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015).  Its rounding error is
several times that of the plain sum, 1e-5 of the output's scale; the transformed weights take four
times the memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Convolution = Callable[[Tensor | None, Tensor], Tensor]

TILE = 4  # rows and columns of the output that one tile makes
WINDOW = TILE + 2  # rows and columns that it sees
PATCH_ROWS = 192  # of a matrix product: enough to be efficient, few enough to stay in the cache
MIN_INPUTS, MIN_OUTPUTS = 8, 16  # with fewer, the transforms cost what they spare
NARROW = 4  # at most so many output channels: all taps are made in one product, then added up

B_T = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
G_24 = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24 G
A_T = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def fastest(weight: Tensor, bias: Tensor) -> Convolution:
    """The convolution with `weight` (O, C, taps, 3, 3), taps 3 or 1, and `bias` (O,)."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        outputs, inputs = weight.shape[:2]
        if outputs <= NARROW:
            return Narrow(weight, bias)
        if inputs >= MIN_INPUTS and outputs >= MIN_OUTPUTS:
            return Winograd(weight, bias)
    return Direct(weight, bias)


class Direct:
    """The library's convolution."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self._weight = weight.contiguous(memory_format=torch.channels_last_3d)
        self._last = weight[:, :, -1].contiguous(memory_format=torch.channels_last)
        self._bias = bias

    def __call__(self, past: Tensor | None, x: Tensor) -> Tensor:
        if past is None:
            return F.conv2d(x, self._last, self._bias, padding=1)
        volume = torch.cat([past, x]).transpose(0, 1)[None]  # (1, C, T + 2, H, W)
        return F.conv3d(volume, self._weight, self._bias, padding=(0, 1, 1))[0].transpose(0, 1)


class Narrow:
    """For few output channels: the products of all taps at once, then shifted and added."""

    def __init__(self, weight: Tensor, bias: Tensor):
        outputs, inputs, taps = weight.shape[:3]
        self._matrix = weight.permute(2, 3, 4, 0, 1).reshape(-1, inputs).contiguous()
        self._shape = (taps, 3, 3, outputs)
        self._bias = bias

    def __call__(self, past: Tensor | None, x: Tensor) -> Tensor:
        taps, _, _, outputs = self._shape
        frames, _, height, width = x.shape
        y = x.new_zeros(outputs, frames, height + 2, width + 2)
        before = 0 if past is None else len(past)
        for i, frame in enumerate([*(past if past is not None else ()), *x]):
            matrix = frame.permute(1, 2, 0).flatten(0, 1)  # (H * W, C)
            parts = (self._matrix @ matrix.T).view(*self._shape, height, width)
            for tap in range(taps):
                out = i - before + taps - 1 - tap  # the frame that sees this one through `tap`
                if 0 <= out < frames:
                    for row in range(3):
                        for column in range(3):
                            y[
                                :, out, 2 - row : 2 - row + height, 2 - column : 2 - column + width
                            ] += parts[tap, row, column]
        y = y[:, :, 1:-1, 1:-1] + self._bias[:, None, None, None]
        return y.transpose(0, 1)


class Winograd:
    """F(4 x 4, 3 x 3) in space, the taps in time summed before the way back."""

    def __init__(self, weight: Tensor, bias: Tensor):
        g = torch.tensor(G_24, dtype=torch.float64) / 24
        inwards, outwards = torch.tensor(B_T).double(), torch.tensor(A_T).double()
        self._inwards = torch.kron(inwards, inwards).float()  # (36, 36)
        self._outwards = torch.kron(outwards, outwards).float()  # (16, 36)
        outputs, inputs, taps = weight.shape[:3]
        matrix = torch.kron(g, g).float() @ weight.permute(3, 4, 2, 1, 0).reshape(9, -1)
        self._products = matrix.view(WINDOW**2, taps, inputs, outputs)
        self._bias = bias

    def __call__(self, past: Tensor | None, x: Tensor) -> Tensor:
        """One patch of tiles after another, so that what lies between stays in the cache."""
        x = x.permute(0, 2, 3, 1)  # (T, H, W, C)
        frames, height, width, channels = x.shape
        sources = [x] if past is None else [past.permute(0, 2, 3, 1), x]
        down, across = -(-height // TILE), -(-width // TILE)
        columns = _even(across, max(1, PATCH_ROWS // frames))
        rows = _even(down, max(1, PATCH_ROWS // (frames * columns)))
        y = x.new_empty(frames, height, width, len(self._bias))
        sides = (rows * TILE, columns * TILE)
        patch = x.new_empty(sum(map(len, sources)), sides[0] + 2, sides[1] + 2, channels)
        for top in range(0, height, sides[0]):
            for left in range(0, width, sides[1]):
                _fill(patch, sources, top - 1, left - 1)
                tiles = self._tiles(patch, frames, rows, columns)
                _write(y[:, top : top + sides[0], left : left + sides[1]], tiles, self._bias)
        return y.permute(0, 3, 1, 2)

    def _tiles(self, patch: Tensor, frames: int, rows: int, columns: int) -> Tensor:
        """Frames (T + 2, 4 rows + 2, 4 columns + 2, C) to tiles (4, 4, T, rows, columns, O)."""
        seen, _, _, channels = patch.shape
        frame, row, column, _ = patch.stride()
        windows = patch.as_strided(
            (WINDOW, WINDOW, seen, rows, columns, channels),
            (row, column, frame, TILE * row, TILE * column, 1),
        )
        d = (self._inwards @ windows.reshape(WINDOW**2, -1)).view(WINDOW**2, seen, -1, channels)
        taps = seen - frames + 1
        products = self._products[:, -taps:]
        total = torch.bmm(d[:, :frames].flatten(1, 2), products[:, 0])
        for tap in range(1, taps):
            total.baddbmm_(d[:, tap : tap + frames].flatten(1, 2), products[:, tap])
        tiles = self._outwards @ total.view(WINDOW**2, -1)
        return tiles.view(TILE, TILE, frames, rows, columns, -1)


def _even(total: int, most: int) -> int:
    """The size of the fewest parts of `total`, none above `most`, as even as can be."""
    return -(-total // -(-total // most))


def _fill(patch: Tensor, sources: list[Tensor], top: int, left: int) -> None:
    """Copy what lies at (top, left) of all sources, one after the other; zero outside of them."""
    spans = []
    for axis, start in ((1, top), (2, left)):
        first, last = max(start, 0), min(start + patch.shape[axis], sources[0].shape[axis])
        if (first, last) != (start, start + patch.shape[axis]):
            patch.zero_()
        spans += [slice(first, last), slice(first - start, last - start)]
    frame = 0
    for source in sources:
        patch[frame : frame + len(source), spans[1], spans[3]] = source[:, spans[0], spans[2]]
        frame += len(source)


def _write(y: Tensor, tiles: Tensor, bias: Tensor) -> None:
    """Tiles (4, 4, T, rows, columns, O) and the bias to their place in y (T, H, W, O)."""
    frames, height, width, outputs = y.shape
    rows, columns = tiles.shape[3:5]
    placed = tiles.permute(2, 3, 0, 4, 1, 5)  # (T, rows, 4, across, 4, O)
    if (height, width) == (rows * TILE, columns * TILE):
        torch.add(placed, bias, out=y.unflatten(1, (rows, TILE)).unflatten(3, (columns, TILE)))
    else:
        y.copy_(
            (placed + bias).reshape(frames, rows * TILE, columns * TILE, outputs)[
                :, :height, :width
            ]
        )
