from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import KernelChoiceError, layernorm_modulate, native
from dtg_restore.kernels.layernorm_modulate import OP

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
EPS = 1e-6


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_formula_in_double_precision() -> None:
    x, scale, shift = 3 * rand(2, 5, 48) + 1, rand(2, 48, seed=1), rand(2, 48, seed=2)
    centred = x.double() - x.double().mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
    want = normal * (1 + scale.double()[:, None]) + shift.double()[:, None]
    got = layernorm_modulate(x, scale, shift, EPS)
    torch.testing.assert_close(got.double(), want, rtol=3e-6, atol=3e-6)


@needs_native
def test_large_mean_costs_no_digits() -> None:
    """The variance is that of the deviations, not a difference of large squares."""
    x = rand(1, 3, 512) + 1000
    scale = shift = torch.zeros(1, 512)
    got = layernorm_modulate(x, scale, shift, implementation="native")
    want = torch.nn.functional.layer_norm(x.double(), (512,), eps=EPS)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=5e-4)


@needs_native
def test_native_rounds_bfloat16_to_the_nearest() -> None:
    x, zero = rand(1, 64, 512).bfloat16(), torch.zeros(1, 512)
    got = layernorm_modulate(x, zero, zero, implementation="native").double()
    exact = torch.nn.functional.layer_norm(x.double(), (512,), eps=EPS)
    assert ((got - exact).abs() <= 2**-8 * exact.abs() * (1 + 1e-4)).all()
    assert (got - exact).mean().abs() < 1e-4  # no drift


@needs_native
def test_native_keeps_what_is_not_a_number() -> None:
    x = rand(1, 2, 48).bfloat16()
    x[0, 0, 3] = float("nan")
    got = layernorm_modulate(x, *2 * [torch.zeros(1, 48)], implementation="native")
    assert got[0, 0].isnan().all()
    assert not got[0, 1].isnan().any()


@needs_native
def test_native_is_not_chosen_where_a_gradient_is_wanted() -> None:
    x, scale, shift = rand(1, 2, 8), rand(1, 8, seed=1), rand(1, 8, seed=2)
    for place in range(3):
        arguments = [x, scale, shift]
        arguments[place] = arguments[place].clone().requires_grad_()
        assert OP.choose(*arguments, EPS).name == "reference"
        with torch.no_grad():
            assert OP.choose(*arguments, EPS).name == "native"
        with torch.inference_mode():
            assert OP.choose(*arguments, EPS).name == "native"
    with pytest.raises(KernelChoiceError, match="shift needs a gradient"):
        layernorm_modulate(*arguments, implementation="native")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": rand(5, 8)}, r"x must be \(B, N, D\), got \(5, 8\)"),
        ({"x": rand(2, 5, 8).double()}, "x must be float32, bfloat16 or float16"),
        ({"scale": rand(3, 8)}, r"scale must be \(2 or 1, 8\) on cpu, got \(3, 8\)"),
        ({"shift": rand(2, 5, 8)}, r"shift must be \(2 or 1, 8\)"),
        ({"shift": rand(2, 8).to("meta")}, "on meta"),
    ],
)
def test_misfits_are_named(changed: dict[str, Tensor], message: str) -> None:
    good = {"x": rand(2, 5, 8), "scale": rand(2, 8), "shift": rand(2, 8)}
    with pytest.raises(ValueError, match=message):
        layernorm_modulate(**(good | changed))
