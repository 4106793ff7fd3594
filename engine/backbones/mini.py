"""`mini`: the embedded backbone, a small DiT of the Wan block class on the `patch` transform.

Its state is pixels.  Per latent channel, with the mean m and the standard deviation sd over the
training set, a = 1 - t and den = a^2 sd^2 + t^2, the network F is preconditioned as

    x0_hat = m + c_skip (x - a m) + c_out F(c_in (x - a m), t, tag)
    c_skip = a sd^2 / den        c_out = t sd / sqrt(den)        c_in = 1 / sqrt(den)

so that with F = 0 it is the Wiener filter of the codec.  The velocity (x - x0_hat) / t is computed
in the form that has no division by t, from the network's own input u = c_in (x - a m):

    v = (t - a sd^2) / sqrt(den) * u - m - sd / sqrt(den) * F

What is done per channel is done inside the transform's own pass over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import load_checkpoint, load_config, load_state
from ..codecs import patch
from ..codecs.pixels import PixelCodec
from ..config import RestoreConfig
from ..errors import ConfigError, EngineError
from ..quantize import DYNAMIC, check_kind, quantize_blocks
from ..schedule import Node
from ..text.embeds import PromptSource
from .attention import Attend
from .base import BackboneFacts
from .blocks import Rope, random_rows
from .dit import Conditioning, DiT, Table, embed_time, rows_of
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
    """Holds the layers of `embed_time`."""

    def __init__(self, frequency_dim: int, dim: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(frequency_dim, dim), nn.Linear(dim, dim)
        self.time_proj = nn.Linear(dim, 6 * dim)


class MiniDiT(DiT):
    """The network and its preconditioning."""

    mean: Tensor  # (384,) of the latent channels
    sd: Tensor

    def __init__(self, config: MiniConfig):
        dim = config.width
        super().__init__(
            patch.CHANNELS, patch.CHANNELS, dim, config.depth, config.heads, config.ffn_dim
        )
        self.config = config
        self.time_embedder = TimeEmbedder(config.frequency_dim, dim)
        self.tag_embedding = nn.Parameter(random_rows(len(TAGS), config.num_condition_tokens, dim))
        nn.init.zeros_(self.proj_out.weight)  # untrained: the Wiener filter
        nn.init.zeros_(self.proj_out.bias)
        self.register_buffer("mean", torch.zeros(patch.CHANNELS))
        self.register_buffer("sd", torch.ones(patch.CHANNELS))

    def condition(self, t: Tensor, tags: Tensor, phase: patch.Phase = (0, 0, 0)) -> Conditioning:
        """What passes at times t (n,) with tags (R,) (indices into TAGS) need."""
        tokens = self.tag_embedding[tags].to(self.patch_embedding.weight.dtype)  # (B, L, D)
        time, frequency_dim = self.time_embedder, self.config.frequency_dim
        made = embed_time(t, frequency_dim, time.linear_1, time.linear_2, time.time_proj)
        return Conditioning(*self.constants(*made, tokens), phase)

    def forward(
        self, x: Tensor, t: Tensor, condition: Conditioning, rope: Rope | None = None
    ) -> Tensor:
        """Velocity (B, 3, T, H, W) of pixels x at times t (B,).  See `tokens` for `rope`."""
        t = t.to(x.dtype)[:, None]
        a, sd = 1 - t, self.sd
        c_in = (a * a * sd * sd + t * t).rsqrt()  # (B, 384)
        u = patch.encode(x, condition.phase, a * self.mean, c_in)  # (B, t, h, w, 384)
        grid = (u.shape[1], u.shape[2], u.shape[3])
        f = self.tokens(u.flatten(1, 3), grid, condition, rope).unflatten(1, grid)
        weights = torch.stack(((t - a * sd * sd) * c_in, -sd * c_in, -self.mean.expand_as(c_in)), 1)
        return patch.decode(u, condition.phase, f, weights)

    def describe(self) -> dict[str, int]:
        return asdict(self.config)


class MiniContext:
    """The conditioning of every node, with the phase of the step."""

    def __init__(self, table: Table, phases: Sequence[patch.Phase]):
        self._table, self._phases = table, phases

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Conditioning:
        return self._table.at(index, rows_of(branches), repeat, self._phases[index])


class MiniBackbone:
    """`MiniDiT` behind the backbone's contract."""

    def __init__(
        self,
        network: MiniDiT,
        device: torch.device,
        dtype: torch.dtype,
        attention: str = "auto",
    ):
        self.facts, self.device = facts_for(network.config), device
        self.attend = Attend(attention, network.head_dim, device, dtype)
        self.attend.steer(network)
        self.network = network.to(device).eval().requires_grad_(False)
        for part in (self.network.patch_embedding, self.network.blocks, self.network.proj_out):
            part.to(dtype)  # the preconditioning and the time embedding stay fp32

    @torch.inference_mode()
    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> MiniContext:
        count, tags = len(nodes), self.tags(prompt, negative_prompt)
        times = [node.t for node in nodes] + [node.tau for node in nodes]
        made = self.network.condition(torch.tensor(times, device=self.device), tags)
        table = Table(
            made.modulation.unflatten(1, (2, count)),
            made.final.unflatten(0, (2, count)),
            made.keys_values,
        )
        return MiniContext(table, [PHASES[i % len(PHASES)] for i in range(count)])

    def tags(self, prompt: str, negative_prompt: str) -> Tensor:
        """(2,), what the branches are conditioned on; ConfigError for what is no tag."""
        for tag in (prompt, negative_prompt):
            if tag not in TAGS:
                raise ConfigError(
                    f"the prompt of mini is a quality tag, one of {', '.join(TAGS)}, not {tag!r}"
                )
        indices = [TAGS.index(tag) for tag in (prompt, negative_prompt)]
        return torch.tensor(indices, device=self.device)

    def on_device(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        # Or the order of x in memory would choose the kernel, and with it the last bit.
        return self.network(x.contiguous(), t, condition)


def facts_for(config: MiniConfig) -> BackboneFacts:
    """Those of the embedded model, but for the size."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in MiniDiT(config).parameters())
    return replace(
        MINI,
        parameters=parameters,
        width=config.width,
        depth=config.depth,
        ffn_width=config.ffn_dim,
        context_tokens=config.num_condition_tokens,
        head_dim=config.width // config.heads,
    )


def load_mini(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "auto",
    weights: str = "auto",
) -> MiniBackbone:
    """Weights of this class; EngineError where they are not."""
    check_kind(weights, device)
    network = MiniDiT(_config(load_config(path), path))
    load_state(network, load_checkpoint(path)[1], str(path))
    if weights != "auto":
        quantize_blocks(network, weights)
    return MiniBackbone(network, device, dtype, attention)


def _config(values: Any, path: Path) -> MiniConfig:
    try:
        return MiniConfig(**values)
    except (TypeError, ValueError) as error:
        raise EngineError(f"{path} is not of the mini class: {error}") from error


class MiniFamily:
    """Files of `save_checkpoint`: one embedded, others by path."""

    def facts(self, path: Path) -> BackboneFacts:
        return facts_for(_config(load_config(path), path))

    def backbone(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> MiniBackbone:
        for name, served in (("offload", ("none",)), ("weights", ("auto", DYNAMIC))):
            if getattr(config, name) not in served:
                raise ConfigError(f"{name} is {getattr(config, name)!r}: mini is too small for it")
        return load_mini(path, device, dtype, config.attention, config.weights)

    def codec(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> PixelCodec:
        if config.vae != "auto":
            raise ConfigError(f"vae is {config.vae!r}: mini works on pixels and has none")
        return PixelCodec(device)

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        raise ConfigError("mini takes quality tags, no text: there is nothing to embed")


FAMILY = MiniFamily()
