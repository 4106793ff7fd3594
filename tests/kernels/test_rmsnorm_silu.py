"""The norm of the codec against its own formula, values at the ends of the range, and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dtg_restore.kernels import rmsnorm_silu
from dtg_restore.kernels.rmsnorm_silu import OP

CPU = torch.device("cpu")
NAMES = [
    i.name
    for i in OP.implementations
    if not i.not_supported_reasons(*OP.cases[0].build(torch.float32, CPU))
]


@pytest.mark.parametrize("name", NAMES)
def test_is_the_norm_of_the_wan_vae(name: str) -> None:
    x, gamma = torch.randn(2, 3, 5, 40), torch.randn(40)
    want = F.normalize(x.double(), dim=-1) * 40**0.5 * gamma
    got = rmsnorm_silu(x, gamma, silu=False, implementation=name)
    torch.testing.assert_close(got, want.float(), rtol=2e-6, atol=2e-6)
    got = rmsnorm_silu(x, gamma, implementation=name)
    torch.testing.assert_close(got, F.silu(want).float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_zeros_and_large_weights(name: str) -> None:
    gamma = torch.tensor([-300.0, -80.0, 80.0, 300.0])
    got = rmsnorm_silu(torch.zeros(3, 4), gamma, implementation=name)
    assert torch.equal(got, torch.zeros(3, 4))
    got = rmsnorm_silu(torch.ones(1, 4), gamma, implementation=name)
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 80.0, 300.0]]))


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="gamma must be"):
        rmsnorm_silu(torch.zeros(2, 4), torch.zeros(5))
    with pytest.raises(ValueError, match="x must be"):
        rmsnorm_silu(torch.zeros(2, 4, dtype=torch.int32), torch.zeros(4))
