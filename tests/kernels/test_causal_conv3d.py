"""The input of a causal convolution: what a convolution of it gives, and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dtg_restore.kernels import causal_conv3d


@pytest.mark.parametrize("with_past", [True, False])
def test_a_convolution_of_it_is_the_padded_one(with_past: bool) -> None:
    x, weight = torch.randn(3, 4, 5, 8), torch.randn(6, 8, 3, 3, 3)
    past = torch.randn(2, 4, 5, 8) if with_past else None
    before = torch.zeros(2, 4, 5, 8) if past is None else past
    volume = torch.cat([before, x]).permute(3, 0, 1, 2)[None]
    want = F.conv3d(volume, weight, padding=(0, 1, 1))
    got = F.conv3d(causal_conv3d(x, past).permute(3, 0, 1, 2)[None], weight)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_what_does_not_fit() -> None:
    x = torch.zeros(2, 4, 4, 8)
    with pytest.raises(ValueError, match="past must be"):
        causal_conv3d(x, torch.zeros(1, 4, 4, 8))
    with pytest.raises(ValueError, match="past must be"):
        causal_conv3d(x, torch.zeros(2, 4, 4, 8, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="x must be"):
        causal_conv3d(x[0], None)
    with pytest.raises(ValueError, match="taps"):
        causal_conv3d(x, None, 0)
