"""Causal 3 x 3 x 3 convolutions of a few frames, by the fastest way of the device.

Frames are (T, C, H, W) in channels-last memory, so that a frame is a matrix (H * W, C).  `past`
holds the two frames before the first; None at the start of a clip, where they are zero and only
the last of the three taps in time has anything to see.

What follows a convolution in its block is part of the call, as the native form does it in the same
pass: `residual` is added, or the next norm, with weights `gamma`, and SiLU are applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import causal_conv3d, rmsnorm_silu, winograd_conv3d
from ...kernels.winograd_conv3d import prepare


class Convolution(Protocol):
    def __call__(
        self,
        past: Tensor | None,
        x: Tensor,
        residual: Tensor | None = None,
        gamma: Tensor | None = None,
    ) -> Tensor: ...


# Of `weight` (O, C, taps, 3, 3), taps 3 or 1, and `bias` (O,), of frames made `scale` times as
# large by repeated pixels.
MakeConvolution = Callable[[Tensor, Tensor, int], Convolution]


def fastest(weight: Tensor, bias: Tensor, scale: int = 1) -> Convolution:
    """What the device is fastest with."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return Winograd(weight, bias, scale)
    return Direct(weight, bias, scale)


def rows(x: Tensor) -> Tensor:
    """(T, C, H, W) in channels-last memory seen as (T, H, W, C), and ..."""
    return x.permute(0, 2, 3, 1)


def planes(x: Tensor) -> Tensor:
    """... the way back."""
    return x.permute(0, 3, 1, 2)


def _enlarged(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(scale), mode="nearest") if scale > 1 else x


def _normed(y: Tensor, gamma: Tensor | None) -> Tensor:
    return y if gamma is None else planes(rmsnorm_silu(rows(y), gamma))


class Direct:
    """The library's convolution."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: int = 1):
        self._weight = weight.contiguous(memory_format=torch.channels_last_3d)
        self._last = weight[:, :, -1].contiguous(memory_format=torch.channels_last)
        self._bias, self._scale = bias, scale

    def __call__(
        self,
        past: Tensor | None,
        x: Tensor,
        residual: Tensor | None = None,
        gamma: Tensor | None = None,
    ) -> Tensor:
        y = self._convolve(past, x)
        if residual is not None:
            y.add_(residual)
        return _normed(y, gamma)

    def _convolve(self, past: Tensor | None, x: Tensor) -> Tensor:
        x = _enlarged(x, self._scale)
        if past is None:
            return F.conv2d(x, self._last, self._bias, padding=1)
        seen = causal_conv3d(rows(x), rows(past))  # (T + 2, H + 2, W + 2, C)
        volume = seen.permute(3, 0, 1, 2)[None]
        return F.conv3d(volume, self._weight, self._bias)[0].transpose(0, 1)


class Traced(nn.Module):
    """The library's convolution in the fewest operators, for graphs that other runtimes execute."""

    weight: Tensor
    last: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, scale: int = 1):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("last", weight[:, :, -1].contiguous())
        self.register_buffer("bias", bias)
        self._scale = scale

    def forward(
        self,
        past: Tensor | None,
        x: Tensor,
        residual: Tensor | None = None,
        gamma: Tensor | None = None,
    ) -> Tensor:
        y = self._convolve(past, x)
        if residual is not None:
            y = y + residual  # in place, the exporter would scatter it into a view
        return _normed(y, gamma)

    def _convolve(self, past: Tensor | None, x: Tensor) -> Tensor:
        x = _enlarged(x, self._scale)
        if past is None:
            return F.conv2d(x, self.last, self.bias, padding=1)
        volume = torch.cat([past, x]).transpose(0, 1)[None]  # (1, C, T + 2, H, W)
        return F.conv3d(volume, self.weight, self.bias, padding=(0, 1, 1))[0].transpose(0, 1)


class Winograd:
    """See `kernels.winograd_conv3d`."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: int = 1):
        self._weights, self._bias, self._scale = prepare(weight), bias, scale

    def __call__(
        self,
        past: Tensor | None,
        x: Tensor,
        residual: Tensor | None = None,
        gamma: Tensor | None = None,
    ) -> Tensor:
        y = winograd_conv3d(
            rows(x),
            None if past is None else rows(past),
            self._weights,
            self._bias,
            None if residual is None else rows(residual),
            gamma,
            self._scale,
        )
        return planes(y)
