"""The activation of the feed-forward at the ends of the range, and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dtg_restore.kernels import gelu_bias
from dtg_restore.kernels.gelu_bias import OP

CPU = torch.device("cpu")
NAMES = [
    i.name
    for i in OP.implementations
    if not i.not_supported_reasons(*OP.cases[0].build(torch.float32, CPU))
]


@pytest.mark.parametrize("name", NAMES)
def test_all_of_the_range(name: str) -> None:
    x = torch.linspace(-40, 40, 8001).view(-1, 3)
    bias = torch.tensor([0.5, -0.25, 0.0])
    want = F.gelu((x + bias).double(), approximate="tanh").float()
    torch.testing.assert_close(gelu_bias(x, bias, implementation=name), want, rtol=2e-6, atol=2e-6)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="bias must be"):
        gelu_bias(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="x must be"):
        gelu_bias(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(4))
