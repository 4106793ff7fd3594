"""The transformer block of the Wan class.

Parameter names are those of diffusers' `WanTransformer3DModel`, so that its state dicts fit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rope = tuple[Tensor, Tensor]  # cos, sin: (N, head_dim / 2)
KeyValue = tuple[Tensor, Tensor]  # each (R, heads, L, head_dim)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """x / rms(x) * weight over the last dimension, in fp32."""
    return F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps).to(x.dtype)


def layernorm_modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-6) -> Tensor:
    """LN(x) * (1 + scale) + shift; x (B, N, D), scale and shift (B, D)."""
    y = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return torch.addcmul(shift[:, None], y, 1 + scale[:, None]).to(x.dtype)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """An affine LN in fp32, whatever x is in."""
    y = F.layer_norm(x.float(), x.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps)
    return y.to(x.dtype)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotary embedding of interleaved pairs; x (B, heads, N, head_dim)."""
    cos, sin = rope
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a cached inference tensor would refuse to take part in training
def rope_3d(t: int, h: int, w: int, head_dim: int, device: torch.device) -> Rope:
    """Tables for a (t, h, w) grid of tokens.

    Rows and columns get 2 * (head_dim // 6) channels each, time the rest.
    """
    spatial = 2 * (head_dim // 6)
    axes = []
    for size, dim in ((t, head_dim - 2 * spatial), (h, spatial), (w, spatial)):
        frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        axes.append(torch.arange(size, dtype=torch.float64)[:, None] * frequency)
    angles = torch.cat(
        [
            axes[0][:, None, None].expand(t, h, w, -1),
            axes[1][None, :, None].expand(t, h, w, -1),
            axes[2][None, None, :].expand(t, h, w, -1),
        ],
        dim=-1,
    ).reshape(t * h * w, -1)
    return angles.cos().float().to(device), angles.sin().float().to(device)


class Attention(nn.Module):
    """Attention with RMSNorm over the full width on queries and keys."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q, self.norm_k = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)

    def keys_values(self, tokens: Tensor) -> KeyValue:
        """Keys and values of tokens (B, L, D)."""
        key = rms_norm(self.to_k(tokens), self.norm_k.weight)
        return self._split(key), self._split(self.to_v(tokens))

    def forward(self, x: Tensor, rope: Rope | None, keys_values: KeyValue | None = None) -> Tensor:
        """Self-attention with `rope` or, of x (B, N, D), cross-attention to prepared `keys_values`.

        These have R rows, each for B / R consecutive samples.  No query sees another one, so the
        samples of a row are one long sequence and nothing is repeated.
        """
        shape = x.shape
        if keys_values is not None:
            x = x.reshape(keys_values[0].shape[0], -1, shape[-1])
        query = self._split(rms_norm(self.to_q(x), self.norm_q.weight))
        key, value = self.keys_values(x) if keys_values is None else keys_values
        if rope is not None:
            query, key = rotate(query, rope), rotate(key, rope)
        out = F.scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype))
        return self.to_out[0](out.transpose(1, 2).flatten(-2)).reshape(shape)


class GELUProjection(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        # The middle entry is diffusers' dropout; it keeps the numbering of the keys.
        self.net = nn.Sequential(GELUProjection(dim, inner), nn.Identity(), nn.Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the time (adaLN)."""

    def __init__(self, dim: int, heads: int, ffn_dim: int):
        super().__init__()
        self.attn1 = Attention(dim, heads)
        self.attn2 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = FeedForward(dim, ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / math.sqrt(dim))

    def forward(self, x: Tensor, modulation: Tensor, rope: Rope, keys_values: KeyValue) -> Tensor:
        """x (B, N, D); modulation (B or 1, 6, D), this block's table already added, fp32."""
        shift, scale, gate, c_shift, c_scale, c_gate = modulation.unbind(1)
        y = self.attn1(layernorm_modulate(x, scale, shift), rope)
        x = x + (y * gate[:, None]).to(x.dtype)
        x = x + self.attn2(layer_norm(x, self.norm2), None, keys_values)
        y = self.ffn(layernorm_modulate(x, c_scale, c_shift))
        return x + (y * c_gate[:, None]).to(x.dtype)
