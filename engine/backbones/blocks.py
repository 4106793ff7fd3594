"""The transformer block of the Wan class.

Parameter names are those of diffusers' `WanTransformer3DModel`, so that its state dicts fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from ...kernels import (
    attention,
    gate_residual_norm,
    layernorm_modulate,
    linear,
    rmsnorm_rope,
)

Rope = tuple[Tensor, Tensor]  # cos, sin: (N, head_dim / 2)
KeyValue = tuple[Tensor, Tensor]  # each (R, heads, L, head_dim)


def rope_3d(t: int, h: int, w: int, head_dim: int, device: torch.device) -> Rope:
    """Tables for a (t, h, w) grid of tokens.

    Rows and columns get 2 * (head_dim // 6) channels each, time the rest.
    """
    # What is made while a call is traced has no values, and must not be kept.
    return (_make_rope if torch.compiler.is_compiling() else _made_rope)(t, h, w, head_dim, device)


def rope_frequencies(head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The angle between neighbours in time, rows and columns, of each pair of channels; fp64."""
    spatial = 2 * (head_dim // 6)
    t, h, w = (
        10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        for dim in (head_dim - 2 * spatial, spatial, spatial)
    )
    return t, h, w


def rope_angles(t: int, h: int, w: int, frequencies: Sequence[Tensor]) -> Tensor:
    """The angles of a (t, h, w) grid of tokens, (t h w, head_dim / 2), in the type of these."""
    axes = [
        torch.arange(size, dtype=frequency.dtype, device=frequency.device)[:, None] * frequency
        for size, frequency in zip((t, h, w), frequencies, strict=True)
    ]
    return torch.cat(
        [
            axes[0][:, None, None].expand(t, h, w, -1),
            axes[1][None, :, None].expand(t, h, w, -1),
            axes[2][None, None, :].expand(t, h, w, -1),
        ],
        dim=-1,
    ).reshape(t * h * w, -1)


@torch.inference_mode(False)  # a kept inference tensor would refuse to take part in training
def _make_rope(t: int, h: int, w: int, head_dim: int, device: torch.device) -> Rope:
    angles = rope_angles(t, h, w, rope_frequencies(head_dim))
    return angles.cos().float().to(device), angles.sin().float().to(device)


_made_rope = lru_cache(maxsize=16)(_make_rope)


class Linear(nn.Linear):
    """A linear layer on the engine's op, with the activation of a feed-forward layer on demand."""

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        return linear(x, self.weight, self.bias, gelu)


class Attention(nn.Module):
    """Attention with RMSNorm over the full width on queries and keys."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(dim, dim)])
        self.norm_q, self.norm_k = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = attention  # see `Attend`

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)

    def keys_values(self, tokens: Tensor, rope: Rope | None = None) -> KeyValue:
        """Keys and values of tokens (B, L, D); `rope` turns the keys."""
        key = self._normed(self.to_k(tokens), self.norm_k, rope)
        return key, self._split(self.to_v(tokens))

    def _normed(self, x: Tensor, norm: nn.RMSNorm, rope: Rope | None) -> Tensor:
        cos, sin = rope or (None, None)
        return rmsnorm_rope(x, norm.weight, cos, sin, self.heads)  # (B, heads, N, head_dim)

    def forward(self, x: Tensor, rope: Rope | None, keys_values: KeyValue | None = None) -> Tensor:
        """Self-attention with `rope` or, of x (B, N, D), cross-attention to prepared `keys_values`.

        These have R rows, each for B / R consecutive samples.  No query sees another one, so the
        samples of a row are one long sequence and nothing is repeated.
        """
        shape = x.shape
        if keys_values is not None:
            x = x.reshape(keys_values[0].shape[0], -1, shape[-1])
        query = self._normed(self.to_q(x), self.norm_q, rope)
        key, value = self.keys_values(x, rope) if keys_values is None else keys_values
        out = self.attend(query, key.to(query.dtype), value.to(query.dtype))
        return self.to_out[0](out.transpose(1, 2).flatten(-2)).reshape(shape)


class GELUProjection(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = Linear(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x, gelu=True)


class FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        # The middle entry is diffusers' dropout; it keeps the numbering of the keys.
        self.net = nn.Sequential(GELUProjection(dim, inner), nn.Identity(), Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def random_rows(*shape: int) -> Tensor:
    """Random rows of about unit length.

    They have no values on the meta device: arithmetic there imports torch's compiler, which takes
    seconds, and facts are read from networks without values.
    """
    rows = torch.empty(shape)
    return rows if rows.is_meta else torch.randn(shape) / math.sqrt(shape[-1])


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the time (adaLN)."""

    def __init__(self, dim: int, heads: int, ffn_dim: int):
        super().__init__()
        self.attn1 = Attention(dim, heads)
        self.attn2 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = FeedForward(dim, ffn_dim)
        self.scale_shift_table = nn.Parameter(random_rows(1, 6, dim))

    def forward(self, x: Tensor, modulation: Tensor, rope: Rope, keys_values: KeyValue) -> Tensor:
        """x (B, N, D); modulation (B or 1, 6, D), this block's table already added, fp32."""
        shift, scale, gate, c_shift, c_scale, c_gate = modulation.unbind(1)
        norm2 = self.norm2
        y = self.attn1(layernorm_modulate(x, scale, shift), rope)
        x, y = gate_residual_norm(x, y, gate, norm2.weight, norm2.bias, affine=True, eps=norm2.eps)
        y = self.attn2(y, None, keys_values)
        x, y = gate_residual_norm(x, y, None, c_scale, c_shift)
        return torch.addcmul(x, self.ffn(y), c_gate[:, None]).to(x.dtype)
