from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import gate_residual_norm, native
from dtg_restore.kernels.gate_residual_norm import OP

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_formula_in_double_precision(affine: bool, gated: bool) -> None:
    x, y = rand(2, 5, 48), rand(2, 5, 48, seed=1)
    gate = rand(2, 48, seed=2) if gated else None
    scale, shift = rand(2, 48, seed=3), rand(2, 48, seed=4)
    if affine:
        scale, shift = scale[0], shift[0]
    factor = 1.0 if gate is None else gate.double()[:, None]
    total = x.double() + factor * y.double()
    centred = total - total.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    if affine:
        want = normal * scale.double() + shift.double()
    else:
        want = normal * (1 + scale.double()[:, None]) + shift.double()[:, None]
    got = gate_residual_norm(x, y, gate, scale, shift, affine)
    torch.testing.assert_close([t.double() for t in got], [total, want], rtol=3e-6, atol=3e-6)


@needs_native
def test_norm_is_of_the_sum_before_it_is_rounded() -> None:
    x, y = rand(1, 3, 512).bfloat16(), rand(1, 3, 512, seed=1).bfloat16()
    zero = torch.zeros(1, 512)
    total, normed = gate_residual_norm(x, y, None, zero, zero, implementation="native")
    exact = x.double() + y.double()
    assert torch.equal(total, exact.bfloat16())
    want = torch.nn.functional.layer_norm(exact, (512,), eps=1e-6)
    assert ((normed.double() - want).abs() <= 2**-8 * want.abs() * (1 + 1e-4)).all()


@needs_native
def test_native_is_not_chosen_where_a_gradient_is_wanted() -> None:
    for place in range(5):
        arguments = [rand(1, 2, 8), rand(1, 2, 8), *(rand(1, 8) for _ in range(3))]
        arguments[place].requires_grad_()
        assert OP.choose(*arguments, False, 1e-6).name == "reference"
        with torch.no_grad():
            assert OP.choose(*arguments, False, 1e-6).name == "native"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": rand(2, 5, 8).bfloat16()}, "y is torch.bfloat16"),
        ({"y": rand(2, 4, 8)}, r"y is torch.float32 \(2, 4, 8\) on cpu, but x is"),
        ({"gate": rand(2, 7)}, r"gate must be \(2 or 1, 8\)"),
        ({"scale": rand(8)}, r"scale must be \(2 or 1, 8\) on cpu, got \(8,\)"),
        ({"affine": True}, r"scale must be \(8,\) on cpu, got \(2, 8\)"),
    ],
)
def test_misfits_are_named(changed: dict[str, Tensor], message: str) -> None:
    good = {"x": rand(2, 5, 8), "y": rand(2, 5, 8), "gate": None}
    good |= {"scale": rand(2, 8), "shift": rand(2, 8)}
    with pytest.raises(ValueError, match=message):
        gate_residual_norm(**(good | changed))
