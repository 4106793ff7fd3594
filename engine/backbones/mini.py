"""`mini`: the embedded backbone, a small DiT of the Wan block class on the `patch` transform.

Its state is pixels.  Per latent channel, with the mean m and the standard deviation sd over the
training set, a = 1 - t and den = a^2 sd^2 + t^2, the network F is preconditioned as

    x0_hat = m + c_skip (x - a m) + c_out F(c_in (x - a m), t, tag)
    c_skip = a sd^2 / den        c_out = t sd / sqrt(den)        c_in = 1 / sqrt(den)

so that with F = 0 it is the Wiener filter of the codec.  The velocity (x - x0_hat) / t is computed
in the form that has no division by t:

    v = (t - a sd^2) / den * (x - a m) - m - sd / sqrt(den) * F
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..checkpoint import EMBEDDED, load_checkpoint, load_state
from ..codecs import patch
from ..errors import ConfigError, EngineError
from ..schedule import Node
from .blocks import Attention, Block, Conditioning, layernorm_modulate, rope_3d, timestep_embedding
from .facts import MINI

TAGS = ("clean", "degraded", "null")

# Shifts of the block grid, one a step in turn: every pair of neighbours differs in each axis that
# it can differ in, so that an edge is in the middle of a block one or two steps later.
PHASES: tuple[patch.Phase, ...] = ((0, 0, 0), (1, 4, 4), (0, 4, 0), (1, 0, 4))


@dataclass(frozen=True)
class MiniConfig:
    width: int = 192
    depth: int = 6
    heads: int = 6
    ffn_dim: int = 768
    num_condition_tokens: int = 4
    frequency_dim: int = 128

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1 or self.width % (2 * self.heads):
            raise ValueError(f"{self}: heads of an even, whole width are needed")


class TimeEmbedder(nn.Module):
    """t (B,) to the embedding (B, D) and the shared modulation (B, 6, D), fp32."""

    def __init__(self, frequency_dim: int, dim: int):
        super().__init__()
        self.frequency_dim = frequency_dim
        self.linear_1, self.linear_2 = nn.Linear(frequency_dim, dim), nn.Linear(dim, dim)
        self.time_proj = nn.Linear(dim, 6 * dim)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        y = timestep_embedding(t, self.frequency_dim)
        y = self.linear_2(nn.functional.silu(self.linear_1(y))).float()
        return y, self.time_proj(nn.functional.silu(y)).float().unflatten(-1, (6, -1))


class MiniDiT(nn.Module):
    """The network and its preconditioning."""

    mean: Tensor  # (384,) of the latent channels
    sd: Tensor

    def __init__(self, config: MiniConfig):
        super().__init__()
        self.config = config
        dim = config.width
        self.patch_embedding = nn.Linear(patch.CHANNELS, dim)
        self.time_embedder = TimeEmbedder(config.frequency_dim, dim)
        self.tag_embedding = nn.Parameter(
            torch.randn(len(TAGS), config.num_condition_tokens, dim) / dim**0.5
        )
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.ffn_dim) for _ in range(config.depth)
        )
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.proj_out = nn.Linear(dim, patch.CHANNELS)
        nn.init.zeros_(self.proj_out.weight)  # untrained: the Wiener filter
        nn.init.zeros_(self.proj_out.bias)
        self.register_buffer("mean", torch.zeros(patch.CHANNELS))
        self.register_buffer("sd", torch.ones(patch.CHANNELS))

    def condition(self, t: Tensor, tags: Tensor, phase: patch.Phase = (0, 0, 0)) -> Conditioning:
        """What the passes at times t (B,) with tags (B,) (indices into TAGS) need."""
        embedding, shared = self.time_embedder(t)
        attentions = [cast(Attention, block.attn2) for block in self.blocks]
        dtype = self.patch_embedding.weight.dtype
        tokens = self.tag_embedding[tags].to(dtype)  # (B, L, D)
        return Conditioning(
            modulation=torch.stack([b.scale_shift_table.float() + shared for b in self.blocks]),
            final=self.scale_shift_table.float() + embedding[:, None],
            keys_values=tuple(attention.keys_values(tokens) for attention in attentions),
            phase=phase,
        )

    def forward(self, x: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Velocity (B, 3, T, H, W) of pixels x at times t (B,)."""
        z = patch.encode(x, condition.phase)  # (B, t, h, w, 384)
        t = t.to(z.dtype)[:, None, None, None, None]
        a, sd = 1 - t, self.sd
        den = a * a * sd * sd + t * t
        centred = z - a * self.mean
        f = self._network(centred * den.rsqrt(), condition)
        v = (t - a * sd * sd) / den * centred - self.mean - sd * den.rsqrt() * f
        return patch.decode(v, condition.phase)

    def _network(self, z: Tensor, condition: Conditioning) -> Tensor:
        grid = z.shape[1:4]
        rope = rope_3d(*grid, self.config.width // self.config.heads, z.device)
        x = self.patch_embedding(z.flatten(1, 3).to(self.patch_embedding.weight.dtype))  # (B, N, D)
        for block, modulation, keys_values in zip(
            self.blocks, condition.modulation, condition.keys_values, strict=True
        ):
            x = block(x, modulation, rope, keys_values)
        shift, scale = condition.final.unbind(1)
        return self.proj_out(layernorm_modulate(x, scale, shift)).float().unflatten(1, grid)

    def describe(self) -> dict[str, int]:
        return asdict(self.config)


class MiniContext:
    """The conditioning of every node: one table a branch, repeated over the batch on demand."""

    def __init__(self, table: dict[str, Conditioning], phases: Sequence[patch.Phase]):
        self._table, self._phases = table, phases

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Conditioning:
        rows, at = [self._table[branch] for branch in branches], slice(index, index + 1)

        def batch(parts: list[Tensor], dim: int = 0) -> Tensor:
            return torch.cat(parts, dim).repeat_interleave(repeat, dim)

        return Conditioning(
            modulation=batch([row.modulation[:, at] for row in rows], dim=1),
            final=batch([row.final[at] for row in rows]),
            keys_values=tuple(
                (batch([pair[0] for pair in pairs]), batch([pair[1] for pair in pairs]))
                for pairs in zip(*(row.keys_values for row in rows), strict=True)
            ),
            phase=self._phases[index],
        )


class MiniBackbone:
    """`MiniDiT` behind the backbone's contract."""

    facts = MINI

    def __init__(self, network: MiniDiT, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.network = network.to(device).eval().requires_grad_(False)
        for part in (self.network.patch_embedding, self.network.blocks, self.network.proj_out):
            part.to(dtype)  # the preconditioning and the time embedding stay fp32

    @torch.inference_mode()
    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> MiniContext:
        times = {"cond": [n.t for n in nodes], "uncond": [n.tau for n in nodes]}
        tags = {"cond": prompt, "uncond": negative_prompt}
        table = {}
        for branch, tag in tags.items():
            if tag not in TAGS:
                raise ConfigError(
                    f"the prompt of mini is a quality tag, one of {', '.join(TAGS)}, not {tag!r}"
                )
            index = torch.tensor([TAGS.index(tag)], device=self.device)
            t = torch.tensor(times[branch], dtype=torch.float32, device=self.device)
            table[branch] = self.network.condition(t, index)
        return MiniContext(table, [PHASES[i % len(PHASES)] for i in range(len(nodes))])

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        return self.network(x, t, condition)


def load_mini(device: torch.device, dtype: torch.dtype, path: Path | None = None) -> MiniBackbone:
    """The embedded weights, or others of the same class from `path`."""
    path = path or EMBEDDED / "mini.safetensors"
    config, state = load_checkpoint(path)
    try:
        network = MiniDiT(MiniConfig(**config))
    except (TypeError, ValueError) as error:
        raise EngineError(f"{path} is not of the mini class: {error}") from error
    load_state(network, state, str(path))
    return MiniBackbone(network, device, dtype)
