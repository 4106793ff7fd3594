"""Wan 2.1 and 2.2 as a backbone: one class for one transformer and for two experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..codecs.base import Codec, CodecFacts
from ..codecs.choice import load_wan_codec
from ..config import RestoreConfig
from ..devices import resolve_dtype
from ..errors import EngineError
from ..quantize import check_kind
from ..schedule import Node
from ..text.embeds import Embeds, PromptSource
from ..text.umt5 import umt5_encoder
from .attention import Attend
from .base import BackboneFacts
from .dit import BRANCHES, Conditioning, Table, rows_of
from .facts import RESTORATION_NEGATIVE, RESTORATION_PROMPT, TEXT_DEFAULTS
from .wan_dit import WanDiT
from .wan_layout import Expert, WanConfig, experts
from .wan_weights import check, read

# By the channels of the latents, which tell the two codecs apart; bench/results/codec_wan.json.
CODECS = {
    16: CodecFacts("wan-vae-2.1", 16, 4, 8, True, parameters=126_892_531, live_values=4670),
    48: CodecFacts("wan-vae-2.2", 48, 4, 16, True, parameters=704_688_668, live_values=2340),
}
TEXT_TOKENS = 512


def live_channels(dim: int, ffn_dim: int) -> float:
    """What a pass holds per token and channel, in self-attention or in the feed-forward layer,
    whichever is more; bench/results/wan_memory.json."""
    return max(11.1, 2 * ffn_dim / dim + 3.2)


class Part(NamedTuple):
    """Consecutive samples of a batch that one expert evaluates."""

    network: WanDiT
    samples: int
    condition: Conditioning


class WanContext:
    """The conditioning of every node: a table an expert, and which expert sees which node."""

    def __init__(
        self, networks: dict[int, WanDiT], tables: dict[int, Table], chosen: dict[str, list[int]]
    ):
        self._networks, self._tables, self._chosen = networks, tables, chosen

    def at(self, index: int, branches: Sequence[str], repeat: int) -> tuple[Part, ...]:
        """Both branches in one part unless their times belong to different experts."""
        parts = []
        for expert, group in groupby(branches, lambda branch: self._chosen[branch][index]):
            names = list(group)
            condition = self._tables[expert].at(index, rows_of(names), repeat)
            parts.append(Part(self._networks[expert], len(names) * repeat, condition))
        return tuple(parts)


class WanBackbone:
    """One or two `WanDiT` behind the backbone's contract.

    The keys of all weights are checked at once; an expert is read from the disk when a run has a
    time that belongs to it.
    """

    def __init__(
        self,
        facts: BackboneFacts,
        parts: Sequence[Expert],
        prompts: PromptSource,
        config: RestoreConfig,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.facts, self.device = facts, device
        self._experts, self._prompts = parts, prompts
        self._config, self._dtype = config, dtype
        self._networks: dict[int, WanDiT] = {}
        head_dim = parts[0].config.dim // parts[0].config.heads
        self.attend = Attend(config.attention, head_dim, device, dtype)
        check_kind(config.weights, device)
        for expert in parts:
            check(expert, config.weights)

    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> WanContext:
        text = self.text(prompt, negative_prompt)  # before the weights take the memory
        return self._context(text, nodes)

    def text(self, prompt: str, negative_prompt: str) -> Tensor:
        """(2, L, D), what the branches are conditioned on; errors as `PromptSource.get`."""
        return _stack(self._prompts.get(prompt, negative_prompt)).to(self.device)

    @torch.inference_mode()
    def _context(self, text: Tensor, nodes: Sequence[Node]) -> WanContext:
        times = {"cond": [n.t for n in nodes], "uncond": [n.tau for n in nodes]}
        chosen = {branch: [self._expert_at(t) for t in times[branch]] for branch in BRANCHES}
        used = sorted({expert for row in chosen.values() for expert in row[:-1]})
        grid = torch.tensor([times[branch] for branch in BRANCHES], device=self.device)
        tables = {}
        for expert in used:
            network = self.network(expert)
            with network.on_device():
                tables[expert] = network.table(grid, text)
        return WanContext(self._networks, tables, chosen)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        with ExitStack() as stack:
            for network in self._networks.values():
                stack.enter_context(network.on_device())
            yield

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: tuple[Part, ...]) -> Tensor:
        batches = x.split([part.samples for part in condition])
        parts = [p.network(z, p.condition) for p, z in zip(condition, batches, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _expert_at(self, t: float) -> int:
        return max(i for i, expert in enumerate(self._experts) if t >= expert.t_from)

    def read_network(self, expert: int) -> WanDiT:
        """That of an expert, all of it on the device and in the caller's hands alone."""
        config = replace(self._config, offload="none")
        return read(self._experts[expert], config, self.device, self._dtype)

    def network(self, expert: int) -> WanDiT:
        """That of an expert, read when it is first asked for."""
        if expert not in self._networks:
            self._networks[expert] = read(
                self._experts[expert], self._config, self.device, self._dtype
            )
            self.attend.steer(self._networks[expert])
        return self._networks[expert]


def _stack(embeds: tuple[Embeds, Embeds]) -> Tensor:
    """(branches, L, D): the shorter is filled up with zeros, as Wan's own encoder does."""
    text = [part["prompt_embeds"].float() for part in embeds]
    length = max(part.shape[1] for part in text)
    return torch.cat([F.pad(part, (0, 0, 0, length - part.shape[1])) for part in text])


def facts_for(
    config: WanConfig, parameters: int, experts: tuple[float, ...] = (0.0,)
) -> BackboneFacts:
    """Those of a model of that size; see `BackboneFacts` for `experts`."""
    return BackboneFacts(
        name="wan",
        codec=CODECS[config.channels],
        patch=config.patch,
        parameters=parameters,
        width=config.dim,
        depth=config.depth,
        ffn_width=config.ffn_dim,
        context_tokens=TEXT_TOKENS,
        live_channels=live_channels(config.dim, config.ffn_dim),
        chunk=81,
        overlap=9,
        tile=(832, 480),
        tile_overlap=64,
        tile_batch=1,
        defaults=TEXT_DEFAULTS,
        prompt=RESTORATION_PROMPT,
        negative_prompt=RESTORATION_NEGATIVE,
        can_wait=True,
        experts=experts,
        head_dim=config.dim // config.heads,
    )


class WanFamily:
    """Folders of diffusers, of the original code, and single files."""

    def facts(self, path: Path) -> BackboneFacts:
        return self._facts(path, experts(path))

    def _facts(self, path: Path, found: Sequence[Expert]) -> BackboneFacts:
        config = found[0].config
        if config.channels not in CODECS:
            raise EngineError(
                f"{path} works on latents of {config.channels} channels: no codec has them"
            )
        parameters = sum(expert.parameters for expert in found)
        return facts_for(config, parameters, tuple(expert.t_from for expert in found))

    def backbone(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> WanBackbone:
        found = experts(path)
        prompts = self._prompts(path, found, config, device)
        return WanBackbone(self._facts(path, found), found, prompts, config, device, dtype)

    def codec(
        self, path: Path, config: RestoreConfig, device: torch.device, dtype: torch.dtype
    ) -> Codec:
        return load_wan_codec(path, self.facts(path).codec, config, device, dtype)

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        return self._prompts(path, experts(path), config, device)

    def _prompts(
        self, path: Path, found: Sequence[Expert], config: RestoreConfig, device: torch.device
    ) -> PromptSource:
        encode, identity = umt5_encoder(path, device, resolve_dtype(config.dtype, device))
        width = {"prompt_embeds": found[0].config.text_dim}
        return PromptSource(width, encode, identity, config.prompt_embeds)


FAMILY = WanFamily()
