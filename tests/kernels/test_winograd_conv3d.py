"""The Winograd form against the plain sum in double precision, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.kernels import winograd_conv3d
from dtg_restore.kernels.winograd_conv3d import OP, prepare

NAMES = [i.name for i in OP.implementations]


def plain(x: Tensor, past: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    taps = 1 if past is None else weight.shape[2]
    seen = x if past is None else torch.cat([past, x])
    volume, last = seen.permute(3, 0, 1, 2)[None].double(), weight[:, :, -taps:].double()
    return F.conv3d(volume, last, bias.double(), padding=(0, 1, 1))[0].permute(1, 2, 3, 0)


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_past", [True, False])
def test_is_the_plain_sum(name: str, with_past: bool) -> None:
    x, weight, bias = some(3, 13, 22, 24), some(20, 24, 3, 3, 3) / 648**0.5, some(20)
    past = some(2, 13, 22, 24) if with_past else None
    got = winograd_conv3d(x, past, prepare(weight), bias, implementation=name)
    want = plain(x, past, weight, bias)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_more_tiles_than_one_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OP.reference.__globals__, "RUN_BYTES", 1 << 16)
    x, weight, bias = some(2, 9, 70, 16), some(16, 16, 1, 3, 3) / 12, some(16)
    got = winograd_conv3d(x, None, prepare(weight), bias, implementation=name)
    want = plain(x, None, weight, bias)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_what_follows(name: str) -> None:
    x, weight, bias = some(2, 5, 6, 16), some(18, 16, 1, 3, 3) / 12, some(18)
    weights = prepare(weight)
    y = winograd_conv3d(x, None, weights, bias, implementation=name)
    residual, gamma = some(*y.shape), some(18)
    got = winograd_conv3d(x, None, weights, bias, residual, implementation=name)
    torch.testing.assert_close(got, y + residual)
    got = winograd_conv3d(x, None, weights, bias, gamma=gamma, implementation=name)
    normed = y / y.norm(dim=-1, keepdim=True) * 18**0.5 * gamma
    torch.testing.assert_close(got, F.silu(normed), rtol=1e-4, atol=1e-5)
    got = winograd_conv3d(x, None, weights, bias, scale=2, implementation=name)
    larger = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    want = winograd_conv3d(larger, None, weights, bias, implementation=name)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 4, 4, 8)}, "x must be"),
        ({"x": torch.zeros(1, 4, 4, 16, dtype=torch.bfloat16)}, "x must be"),
        ({"past": torch.zeros(1, 4, 4, 16)}, "past must be"),
        ({"bias": torch.zeros(15)}, "bias must be"),
        ({"residual": torch.zeros(1, 4, 4, 15)}, "residual must be"),
        ({"scale": 3}, "scale must be"),
        ({"residual": torch.zeros(1, 4, 4, 16), "gamma": torch.ones(16)}, "exclude each other"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    given = {"x": torch.zeros(1, 4, 4, 16), "past": None, "bias": torch.zeros(16)} | change
    weights = prepare(torch.zeros(16, 16, 3, 3, 3))
    with pytest.raises(ValueError, match=message):
        winograd_conv3d(weights=weights, **given)


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="weight must be"):
        prepare(torch.zeros(16, 16, 3, 5, 5))
    with pytest.raises(ValueError, match="float32"):
        prepare(torch.zeros(16, 16, 3, 3, 3, dtype=torch.bfloat16))
