"""The curve that linear light is seen under."""

from __future__ import annotations

import pytest
import torch

from dtg_restore.engine.media.pictures.tone import KNEE, TOP, decode, encode, from_curve, to_curve


def test_inverse_to_the_precision_of_half_and_better() -> None:
    codes = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    halves = codes[codes.isfinite() & (codes >= 0) & (codes <= TOP)]
    assert torch.equal(from_curve(to_curve(halves.float())).half(), halves)
    x = torch.linspace(-2, TOP, 200_001)
    assert ((from_curve(to_curve(x)) - x).abs() <= 2e-6 * x.abs() + 1e-7).all()


def test_monotone_with_a_continuous_slope() -> None:
    x = torch.linspace(-1, 60, 100_001, dtype=torch.float64)
    assert (to_curve(x).diff() > 0).all()
    for joint in (0.00303993, KNEE):
        near = joint + torch.linspace(-1e-5, 1e-5, 11, dtype=torch.float64)
        slope = to_curve(near).diff() / near.diff()
        assert slope.max() / slope.min() < 1.01


def test_range() -> None:
    y = to_curve(torch.tensor([0.0, TOP, -0.01, TOP * 1.01, 50.0]))
    assert y[0] == 0 and y[1] == pytest.approx(1, abs=1e-6)
    assert y[2] < 0 and y[3] > 1 and y[4] > y[3]
    assert 16 < TOP < 17


def test_mid_tones_are_those_of_srgb() -> None:
    x = torch.tensor([0.001, 0.0031308, 0.02, 0.18, 0.5], dtype=torch.float64)
    srgb = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    assert torch.allclose(to_curve(x), srgb, atol=2e-5)
    assert torch.allclose(decode(encode(x)), x, rtol=1e-12)
