"""The forms of the causal convolution against the plain sum in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.codecs.convolution import Direct, Winograd, fastest

CASES = [  # inputs, outputs, frames, height, width
    (16, 24, 4, 13, 22),
    (24, 16, 1, 4, 5),
    (17, 19, 2, 3, 2),
    (16, 16, 2, 9, 230),  # more tiles than one patch has
    (8, 3, 3, 7, 6),
]


def frames_of(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def plain(weight: Tensor, bias: Tensor, past: Tensor, x: Tensor) -> Tensor:
    volume = torch.cat([past, x]).double().transpose(0, 1)[None]
    y = F.conv3d(volume, weight.double(), bias.double(), padding=(0, 1, 1))
    return y[0].transpose(0, 1)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("form", [Direct, Winograd])
def test_every_form_is_the_plain_sum(form: type, case: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs, outputs, frames, height, width = case
    weight = torch.randn(outputs, inputs, 3, 3, 3) / (27 * inputs) ** 0.5
    bias = torch.randn(outputs)
    past, x = frames_of(2, inputs, height, width), frames_of(frames, inputs, height, width)
    convolution = form(weight, bias)
    want = plain(weight, bias, past, x)
    assert (convolution(past, x) - want).abs().max() < 2e-5 * want.abs().max()
    want = plain(weight, bias, torch.zeros_like(past), x[:1])
    assert (convolution(None, x[:1]) - want).abs().max() < 2e-5 * want.abs().max()


@pytest.mark.parametrize("form", [Direct, Winograd])
def test_single_frames(form: type) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 20, 1, 3, 3) / 180**0.5, torch.randn(16)
    x = frames_of(3, 20, 9, 10)
    want = F.conv2d(x, weight[:, :, 0], bias, padding=1)
    torch.testing.assert_close(form(weight, bias)(None, x), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", [Direct, Winograd])
def test_what_follows_a_convolution(form: type) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 16, 3, 3, 3) / 20, torch.randn(16)
    past, x = frames_of(2, 16, 5, 6), frames_of(2, 16, 5, 6)
    want = plain(weight, bias, past, x).float()
    residual, gamma = frames_of(2, 16, 5, 6), torch.rand(16) + 0.5
    kept = residual.clone()
    got = form(weight, bias)(past, x, residual=residual)
    torch.testing.assert_close(got, want + residual, rtol=0, atol=1e-4)
    assert torch.equal(residual, kept)
    got = form(weight, bias)(past, x, gamma=gamma)
    normed = F.normalize(want, dim=1) * 4 * gamma[:, None, None]
    torch.testing.assert_close(got, F.silu(normed), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", [Direct, Winograd])
def test_frames_made_larger_before(form: type) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 20, 1, 3, 3) / 180**0.5, torch.randn(16)
    x = frames_of(3, 20, 5, 7)
    larger = F.interpolate(x, scale_factor=2.0)
    want = F.conv2d(larger, weight[:, :, 0], bias, padding=1)
    torch.testing.assert_close(form(weight, bias, 2)(None, x), want, rtol=0, atol=1e-4)


def test_winograd_is_for_full_precision_on_the_cpu() -> None:
    def chosen(dtype: torch.dtype, device: str = "cpu") -> type:
        weight = torch.zeros(16, 8, 3, 3, 3, dtype=dtype, device=device)
        return type(fastest(weight, torch.zeros(16, dtype=dtype, device=device)))

    assert chosen(torch.float32) is Winograd
    assert chosen(torch.bfloat16) is Direct
    assert chosen(torch.float32, "meta") is Direct
