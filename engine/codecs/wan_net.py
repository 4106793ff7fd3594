"""Encoder and decoder of the Wan VAE, 2.1 and 2.2.  Module names are the keys of diffusers' files.

Both take one slice of a clip at a time, in order: the encoder the first frame alone and then as
many as make one latent frame; the decoder one latent frame.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .base import Memory
from .convolution import MakeConvolution
from .wan_config import WanVaeConfig
from .wan_layers import (
    Convolution3,
    Downsample,
    Middle,
    Norm,
    Pointwise,
    ResidualBlock,
    Upsample,
    planes,
    rows,
)


class WanVae(nn.Module):
    """On the meta device until its weights are loaded; then `prepare` once."""

    def __init__(self, config: WanVaeConfig):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = Pointwise(2 * config.channels, 2 * config.channels)
        self.post_quant_conv = Pointwise(config.channels, config.channels)

    def prepare(self, make: MakeConvolution) -> WanVae:
        for module in self.modules():
            if isinstance(module, Convolution3):
                module.prepare(make)
        return self

    def encode(self, pixels: Tensor, memory: Memory) -> Tensor:
        """Pixels (T, 3, H, W) in [-1, 1] to the mode of one latent frame (1, C, h, w)."""
        moments = self.quant_conv(self.encoder(pixels, memory))
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: Tensor, memory: Memory) -> Tensor:
        """One latent frame (1, C, h, w) to pixels (T, 3, H, W), not clamped."""
        return self.decoder(self.post_quant_conv(z), memory)


class Encoder(nn.Module):
    def __init__(self, config: WanVaeConfig):
        super().__init__()
        widths = [config.encoder_dim * m for m in (1, *config.multipliers)]
        self._patch = config.patch
        self.conv_in = Convolution3(3 * config.patch**2, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(pairwise(widths)):
            time = config.halves_time[level] if level < len(config.halves_time) else None
            if config.residual:
                self.down_blocks.append(ResidualDown(inputs, outputs, config.blocks, time))
            else:
                self.down_blocks.extend(_chain(inputs, outputs, config.blocks))
                if time is not None:
                    self.down_blocks.append(Downsample(outputs, time))
        self.mid_block = Middle(widths[-1])
        self.norm_out = Norm(widths[-1])
        self.conv_out = Convolution3(widths[-1], 2 * config.channels)

    def forward(self, pixels: Tensor, memory: Memory) -> Tensor:
        x = self.conv_in(_fold(pixels, self._patch), memory)
        for block in self.down_blocks:
            x = block(x, memory)
        x = self.mid_block(x, memory)
        return self.conv_out(self.norm_out(x), memory)


class Decoder(nn.Module):
    def __init__(self, config: WanVaeConfig):
        super().__init__()
        widths = [config.decoder_dim * m for m in config.multipliers[::-1]]
        doubles_time = config.halves_time[::-1]
        self._patch = config.patch
        self.conv_in = Convolution3(config.channels, widths[0])
        self.mid_block = Middle(widths[0])
        self.up_blocks = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(pairwise((widths[0], *widths))):
            time = doubles_time[level] if level < len(doubles_time) else None
            if config.residual:
                self.up_blocks.append(ResidualUp(inputs, outputs, config.blocks + 1, time))
            else:
                inputs = inputs // 2 if level else inputs  # the upsampling before has halved them
                self.up_blocks.append(Up(inputs, outputs, config.blocks + 1, time))
        self.norm_out = Norm(widths[-1])
        self.conv_out = Convolution3(widths[-1], 3 * config.patch**2)

    def forward(self, z: Tensor, memory: Memory) -> Tensor:
        x = self.mid_block(self.conv_in(z, memory), memory)
        for block in self.up_blocks:
            x = block(x, memory)
        x = self.conv_out(self.norm_out(x), memory)
        return _unfold(x, self._patch)


class Up(nn.Module):
    """A level of the decoder of Wan 2.1; `time` is None where nothing is upsampled."""

    def __init__(self, inputs: int, outputs: int, blocks: int, time: bool | None):
        super().__init__()
        self.resnets = nn.ModuleList(_chain(inputs, outputs, blocks))
        self.upsamplers = nn.ModuleList()
        if time is not None:
            self.upsamplers.append(Upsample(outputs, outputs // 2, time))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        for block in (*self.resnets, *self.upsamplers):
            x = block(x, memory)
        return x


class ResidualUp(nn.Module):
    """A level of the decoder of Wan 2.2: its shortcut repeats values to make the larger volume."""

    def __init__(self, inputs: int, outputs: int, blocks: int, time: bool | None):
        super().__init__()
        self.resnets = nn.ModuleList(_chain(inputs, outputs, blocks))
        self.upsampler = Upsample(outputs, outputs, time) if time is not None else None
        self._times, self._outputs = 2 if time else 1, outputs

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = x
        for block in self.resnets:
            y = block(y, memory)
        if self.upsampler is None:
            return y
        y = self.upsampler(y, memory)
        return y.add_(self._shortcut(x)[-len(y) :])  # the clip's first frame stays one

    def _shortcut(self, x: Tensor) -> Tensor:
        frames, channels, height, width = x.shape
        cell = (self._outputs, self._times, 2, 2)  # channels, frames, rows, columns
        repeats = self._outputs * self._times * 4 // channels
        y = rows(x).repeat_interleave(repeats, dim=-1).view(frames, height, width, *cell)
        y = y.permute(0, 4, 1, 5, 2, 6, 3).reshape(-1, 2 * height, 2 * width, self._outputs)
        return planes(y)


class ResidualDown(nn.Module):
    """A level of the encoder of Wan 2.2: its shortcut averages what goes into one value."""

    def __init__(self, inputs: int, outputs: int, blocks: int, time: bool | None):
        super().__init__()
        self.resnets = nn.ModuleList(_chain(inputs, outputs, blocks))
        self.downsampler = Downsample(outputs, time) if time is not None else None
        self._times, self._sides = 2 if time else 1, 1 if time is None else 2
        self._outputs = outputs

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = x
        for block in self.resnets:
            y = block(y, memory)
        if self.downsampler is not None:
            y = self.downsampler(y, memory)
        return y + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if len(x) % self._times:  # the clip's first frame stands alone
            x = torch.cat([torch.zeros_like(x), x])
        frames, channels, height, width = x.shape
        size = (frames // self._times, height // self._sides, width // self._sides)
        y = rows(x).reshape(
            size[0], self._times, size[1], self._sides, size[2], self._sides, channels
        )
        y = y.permute(0, 2, 4, 6, 1, 3, 5).reshape(*size, self._outputs, -1)
        return planes(y.mean(dim=-1))


def _chain(inputs: int, outputs: int, blocks: int) -> list[ResidualBlock]:
    return [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]


def _fold(x: Tensor, side: int) -> Tensor:
    """(T, C, H, W) to (T, C * side * side, H / side, W / side), columns before rows."""
    frames, channels, height, width = x.shape
    x = x.view(frames, channels, height // side, side, width // side, side)
    x = x.permute(0, 2, 4, 1, 5, 3).flatten(3)
    return planes(x)


def _unfold(x: Tensor, side: int) -> Tensor:
    """The inverse of `_fold`."""
    frames, channels, height, width = x.shape
    x = x.reshape(frames, -1, side, side, height, width)
    return x.permute(0, 1, 4, 3, 5, 2).reshape(frames, -1, height * side, width * side)
