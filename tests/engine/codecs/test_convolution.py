"""The forms of the causal convolution against the plain sum in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.codecs.convolution import Direct, Narrow, Winograd, fastest

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
@pytest.mark.parametrize("form", [Direct, Narrow, Winograd])
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


def test_winograd_is_for_wide_layers_in_full_precision() -> None:
    def chosen(outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> type:
        weight = torch.zeros(outputs, inputs, 3, 3, 3, dtype=dtype)
        return type(fastest(weight, torch.zeros(outputs, dtype=dtype)))

    assert chosen(16, 8) is Winograd
    assert chosen(12, 96) is Direct
    assert chosen(16, 3) is Direct
    assert chosen(3, 96) is Narrow
    assert chosen(96, 96, torch.bfloat16) is Direct
