"""Gathering and blending tiles: what they refuse, and that one undoes the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import native, tile_blend, tile_gather

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))

X = torch.arange(2 * 3 * 8 * 10, dtype=torch.float32).reshape(1, 2, 3, 8, 10)
ORIGINS = torch.tensor([[0, 0], [3, 4], [4, 6]], dtype=torch.int32)
TILES = torch.ones(3, 2, 3, 4, 4)
ONES = torch.ones(3, 4)


def windows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 4, generator=generator), torch.rand(3, 4, generator=generator)


def test_tiles_come_in_order_and_again_for_each_repeat() -> None:
    got = tile_gather(X, ORIGINS, (4, 4), 2)
    assert got.shape == (6, 2, 3, 4, 4)
    assert torch.equal(got[1, 1, 2], X[0, 1, 2, 3:7, 4:8])
    assert torch.equal(got[:3], got[3:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blending_sums_windows(dtype: torch.dtype) -> None:
    down, across = windows()
    got = tile_blend(TILES.to(dtype), ORIGINS, down, across, (8, 10))
    want = torch.zeros(8, 10)
    for (y, x), a, b in zip(ORIGINS.tolist(), down, across, strict=True):
        want[y : y + 4, x : x + 4] += a.outer(b)
    torch.testing.assert_close(got, want.expand(1, 2, 3, 8, 10), rtol=0, atol=1e-6)
    assert got[..., 7, 0].eq(0).all()  # where no tile is


def test_a_band_of_rows_is_that_of_the_whole() -> None:
    """Bit for bit: the sum at a place does not depend on where the result begins."""
    values = torch.randn(3, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = tile_blend(values, ORIGINS, *windows(), (8, 10))
    down = ORIGINS - torch.tensor([2, 0], dtype=torch.int32)
    assert torch.equal(tile_blend(values, down, *windows(), (3, 10)), whole[..., 2:5, :])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tile_gather(X[0], ORIGINS, (4, 4)), r"\(1, C, T, H, W\)"),
        (lambda: tile_gather(X.double(), ORIGINS, (4, 4)), "float32"),
        (lambda: tile_gather(X, ORIGINS.long(), (4, 4)), "int32"),
        (lambda: tile_gather(X, ORIGINS[:, :1], (4, 4)), r"\(N, 2\)"),
        (lambda: tile_gather(X, ORIGINS, (5, 4)), r"at \(4, 6\) is not within"),
        (lambda: tile_gather(X, ORIGINS - 1, (4, 4)), r"at \(-1, -1\) is not within"),
        (lambda: tile_gather(X, ORIGINS, (4, 4), 0), "repeat"),
        (lambda: tile_blend(TILES.half(), ORIGINS, ONES, ONES, (8, 10)), "bfloat16"),
        (lambda: tile_blend(TILES, ORIGINS[:2], ONES, ONES, (8, 10)), "2 origins"),
        (lambda: tile_blend(TILES, ORIGINS, ONES[:, :3], ONES, (8, 10)), "window_y must be"),
        (lambda: tile_blend(TILES, ORIGINS, ONES, ONES.double(), (8, 10)), "window_x must be"),
        (lambda: tile_blend(TILES, ORIGINS, ONES, ONES, (-1, 10)), "negative"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@needs_native
def test_binding_reads_nothing_outside_of_the_state() -> None:
    """It is memory safe by itself, whoever calls it."""
    out = torch.empty(3, 2, 3, 4, 4)
    good = {"x": X.data_ptr(), "origins": ORIGINS.data_ptr(), "out": out.data_ptr()}
    good |= {"shape": (3, 6, 4, 4), "size": (8, 10), "repeat": 1, "num_threads": 1}
    native.library().tile_gather(**good)
    for name, value in (("size", (7, 10)), ("size", (8, 9)), ("repeat", 0), ("x", 0)):
        with pytest.raises(ValueError, match="within|repeat|null"):
            native.library().tile_gather(**(good | {name: value}))
