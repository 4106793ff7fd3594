from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.kernels import native, rmsnorm_rope
from dtg_restore.kernels.rmsnorm_rope import OP

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def normed(x: Tensor, weight: Tensor) -> Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()


def test_norm_is_over_the_full_width_and_heads_are_split() -> None:
    x, weight = 3 * rand(2, 5, 48), rand(48, seed=1)
    got = rmsnorm_rope(x, weight, None, None, heads=4)
    want = torch.stack(normed(x, weight).split(12, dim=-1), dim=1)
    assert got.shape == (2, 4, 5, 12)
    assert got.is_contiguous()
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-6)


def test_pairs_turn_like_complex_numbers() -> None:
    x, weight, angles = rand(1, 3, 24), rand(24, seed=1), rand(3, 4, seed=2)
    got = rmsnorm_rope(x, weight, angles.cos(), angles.sin(), heads=3)
    y = normed(x, weight)
    for n in range(3):
        for head in range(3):
            for pair in range(4):
                first = 8 * head + 2 * pair
                value = complex(y[0, n, first], y[0, n, first + 1])
                value *= cmath.exp(1j * angles[n, pair].item())
                found = got[0, head, n, 2 * pair : 2 * pair + 2].tolist()
                assert math.dist(found, (value.real, value.imag)) < 2e-6


@needs_native
def test_native_takes_parameters_but_no_gradients() -> None:
    x, weight = rand(1, 2, 8), nn.Parameter(rand(8))
    assert OP.choose(x, weight, None, None, 2, 1e-6).name == "reference"
    with torch.inference_mode():
        assert OP.choose(x, weight, None, None, 2, 1e-6).name == "native"
    weight.requires_grad_(False)
    assert OP.choose(x, weight, None, None, 2, 1e-6).name == "native"
    assert OP.choose(x.requires_grad_(), weight, None, None, 2, 1e-6).name == "reference"


@needs_native
def test_binding_checks_what_it_can() -> None:
    call = native.library().rmsnorm_rope
    good = dict.fromkeys(["x", "weight", "cos", "sin", "out", "dtype"], 0)
    good |= {"shape": (0, 3, 12), "heads": 2, "eps": 1e-6, "num_threads": 1}
    call(**good)
    for name, value, message in [
        ("shape", (1, 3, 12), "no address but that of an optional may be null"),
        ("shape", (0, 3, 0), "shape must be"),
        ("dtype", 2, "dtype must be 0"),
        ("heads", 5, "a multiple of heads"),
        ("heads", 0, "a multiple of heads"),
        ("cos", 8, "cos and sin are both given"),
        ("num_threads", 0, "num_threads must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**(good | {name: value}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": rand(7)}, r"weight must be \(12,\) on cpu, got \(7,\)"),
        ({"heads": 5}, "heads must divide the width 12, got 5"),
        ({"sin": None}, "cos and sin must both be given, or neither"),
        ({"heads": 4}, "a rotation needs heads of even width, got 3"),
        ({"cos": rand(4, 3)}, r"cos must be float32 \(5, 3\), got torch.float32 \(4, 3\)"),
        ({"sin": rand(5, 3).double()}, "sin must be float32"),
    ],
)
def test_misfits_are_named(changed: dict[str, object], message: str) -> None:
    good = {"x": rand(2, 5, 12), "weight": rand(12), "cos": rand(5, 3), "sin": rand(5, 3)}
    with pytest.raises(ValueError, match=message):
        rmsnorm_rope(**(good | {"heads": 2} | changed))
