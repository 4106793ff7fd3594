"""Building blocks of the Wan VAE, streaming in time.

Frames are (T, C, H, W) in channels-last memory: norms, attention and convolutions in time then work
on rows of C values.  What a layer has to remember of the frames before stands in `memory` under
the layer itself, so that every stream (every tile) has a memory of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import rmsnorm_silu
from .base import Memory
from .convolution import Convolution, MakeConvolution, planes, rows


def remember(memory: Memory, layer: nn.Module, x: Tensor, count: int) -> None:
    """The last `count` frames so far, in memory of their own that stays where it is; zero before
    the first.  Where a call is traced, the memory is new, and no input is written to."""
    if torch.compiler.is_compiling():
        before = (0, 0, 0, 0, 0, 0, count, 0)
        seen = torch.cat([memory[layer], x]) if layer in memory else F.pad(x, before)
        memory[layer] = seen[-count:]
        return
    _, channels, height, width = x.shape
    if layer not in memory:
        memory[layer] = planes(x.new_zeros(count, height, width, channels))
    held, new = memory[layer], min(count, len(x))
    if new < count:  # at most two frames are held: what moves never overlaps
        held[:-new] = held[new:]
    held[-new:] = x[-new:]


class Norm(nn.Module):
    """x / |x| * sqrt(C) * gamma over the channels, and SiLU where something is to be bent."""

    def __init__(self, channels: int, axes: int = 3, silu: bool = True):
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *[1] * axes))
        self._silu = silu

    def forward(self, x: Tensor) -> Tensor:
        return planes(rmsnorm_silu(rows(x), self.gamma.flatten(), silu=self._silu))


class Convolution3(nn.Module):
    """Causal 3 x 3 x 3 convolution, or with `taps` 1 one of single frames, made `scale` times as
    large before."""

    def __init__(self, inputs: int, outputs: int, taps: int = 3, scale: int = 1):
        super().__init__()
        kernel = (taps, 3, 3) if taps > 1 else (3, 3)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self._remembers, self._scale = taps > 1, scale
        self._run: Convolution

    def prepare(self, make: MakeConvolution) -> None:
        """Bring the weights, once they are loaded, into the form that is computed with."""
        weight = self.weight if self._remembers else self.weight[:, :, None]
        self._run = make(weight.detach(), self.bias.detach(), self._scale)
        del self.weight, self.bias  # not to be held twice

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        residual: Tensor | None = None,
        gamma: Tensor | None = None,
    ) -> Tensor:
        y = self._run(memory.get(self), x, residual, gamma)
        if self._remembers:
            remember(memory, self, x, 2)
        return y


class Pointwise(nn.Module):
    """A 1 x 1 convolution: one matrix product for all pixels."""

    def __init__(self, inputs: int, outputs: int, axes: int = 3):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *[1] * axes))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return planes(F.linear(rows(x), self.weight.flatten(1), self.bias))


class TimeConvolution(nn.Module):
    """A 3 x 1 x 1 convolution: the three frames side by side, then one matrix product."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """(T + 2, C, H, W) at stride 1, or (2 T + 1, C, H, W) at stride 2, to (T, O, H, W)."""
        frames = (len(x) - 3) // stride + 1
        taps = [rows(x[tap : tap + stride * (frames - 1) + 1 : stride]) for tap in range(3)]
        matrix = self.weight.flatten(2).transpose(1, 2).flatten(1)  # (O, 3 * C)
        return planes(F.linear(torch.cat(taps, dim=-1), matrix, self.bias))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = Norm(inputs), Norm(outputs)
        self.conv1, self.conv2 = Convolution3(inputs, outputs), Convolution3(outputs, outputs)
        self.conv_shortcut = Pointwise(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = self.conv1(self.norm1(x), memory, gamma=self.norm2.gamma.flatten())
        return self.conv2(y, memory, residual=self.conv_shortcut(x))


class Attention(nn.Module):
    """Single-head self-attention of every frame with itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = Norm(channels, axes=2, silu=False)
        self.to_qkv = Pointwise(channels, 3 * channels, axes=2)
        self.proj = Pointwise(channels, channels, axes=2)

    def forward(self, x: Tensor) -> Tensor:
        frames, channels, height, width = x.shape
        qkv = rows(self.to_qkv(self.norm(x))).reshape(frames, 1, height * width, 3 * channels)
        q, k, v = qkv.chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(planes(y.view(frames, height, width, channels)))


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels)])

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, memory))
        return self.resnets[1](x, memory)


class Downsample(nn.Module):
    """Half the width and height; half the frames too, but for the first of the clip."""

    def __init__(self, channels: int, time: bool):
        super().__init__()
        # The other entry of the list on disk has no weights.
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2, padding=2)})
        self.time_conv = TimeConvolution(channels, channels) if time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        # Zeros belong right and below alone: the first row and column, which see but zeros and the
        # first pixels, are cut off.
        x = self.resample["1"](x)[:, :, 1:, 1:].contiguous(memory_format=torch.channels_last)
        if self.time_conv is None:
            return x
        past = memory.get(self)
        y = x if past is None else self.time_conv(torch.cat([past, x]), stride=2)
        remember(memory, self, x, 1)
        return y


class Upsample(nn.Module):
    """Twice the width and height; twice the frames too, but for the first of the clip."""

    def __init__(self, inputs: int, outputs: int, time: bool):
        super().__init__()
        self.resample = nn.ModuleDict({"1": Convolution3(inputs, outputs, taps=1, scale=2)})
        self.time_conv = TimeConvolution(inputs, 2 * inputs) if time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        if self.time_conv is not None:
            x = self._double_frames(x, self.time_conv, memory)
        return self.resample["1"](x, memory)

    def _double_frames(self, x: Tensor, time_conv: TimeConvolution, memory: Memory) -> Tensor:
        """The first frame of a clip stays one, and those after it do not see it."""
        if self not in memory:
            remember(memory, self, 0 * x, 2)  # zeros that a graph does not hold as a constant
            return x
        pairs = time_conv(torch.cat([memory[self], x]), stride=1)  # (T, 2 * C, H, W)
        remember(memory, self, x, 2)
        frames, _, height, width = pairs.shape
        split = rows(pairs).view(frames, height, width, 2, -1).permute(0, 3, 1, 2, 4)
        return planes(split.flatten(0, 1).contiguous())
