"""The Wan transformer, all sizes.

Source: Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Rope
from .dit import Conditioning, DiT, Table, embed_time
from .wan_layout import WanConfig


class TwoLayers(nn.Module):
    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, dim), nn.Linear(dim, dim)


class ConditionEmbedder(nn.Module):
    """What the time and the text go through, once a run."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.time_embedder = TwoLayers(config.frequency_dim, config.dim)
        self.time_proj = nn.Linear(config.dim, 6 * config.dim)
        self.text_embedder = TwoLayers(config.text_dim, config.dim)


class WanDiT(DiT):
    """The transformer: latents x (B, C, t, h, w) to v of the same shape."""

    def __init__(self, config: WanConfig):
        channels = config.patch_channels
        super().__init__(channels, channels, config.dim, config.depth, config.heads, config.ffn_dim)
        self.config = config
        self.condition_embedder = ConditionEmbedder(config)

    def condition(self, t: Tensor, text: Tensor) -> Conditioning:
        """What passes at times t (n,) under text (R, L, text_dim) need."""
        embedder, frequency_dim = self.condition_embedder, self.config.frequency_dim
        time, mlp = embedder.time_embedder, embedder.text_embedder
        made = embed_time(t, frequency_dim, time.linear_1, time.linear_2, embedder.time_proj)
        tokens = text.to(mlp.linear_1.weight.dtype)
        tokens = mlp.linear_2(F.gelu(mlp.linear_1(tokens), approximate="tanh"))
        return Conditioning(*self.constants(*made, tokens))

    def table(self, times: Tensor, text: Tensor) -> Table:
        """The conditioning at `times` (branches, nodes) under `text` (branches, L, text_dim)."""
        made, shape = self.condition(times.flatten(), text), times.shape
        return Table(
            made.modulation.unflatten(1, shape), made.final.unflatten(0, shape), made.keys_values
        )

    def forward(self, x: Tensor, condition: Conditioning, rope: Rope | None = None) -> Tensor:
        """v (B, C, t, h, w), fp32; t, h and w are multiples of the patch.  See `tokens` for
        `rope`."""
        p, q, r = self.config.patch
        batch, channels, t, h, w = x.shape
        grid = (t // p, h // q, w // r)
        z = x.reshape(batch, channels, grid[0], p, grid[1], q, grid[2], r)
        z = z.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, self.config.patch_channels)
        v = self.tokens(z, grid, condition, rope)  # (B, N, p q r C)
        v = v.reshape(batch, *grid, p, q, r, channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return v.reshape(x.shape)
