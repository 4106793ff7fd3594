"""A compiled network behind the backbone's contract."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..backbones.base import BackboneFacts, Bucket
from ..backbones.dit import BRANCHES
from ..config import RestoreConfig
from ..errors import ConfigError, EngineError
from ..schedule import Node
from .buckets import batches, listed
from .context import BundleContext, Part, Tables, Text
from .facts import backbone_facts
from .fallback import Fallback
from .manifest import Manifest
from .opened import OpenedBundle
from .prompts import prompt_inputs

logger = logging.getLogger("dtg_restore")

AXES = (2, 3, 4)  # of x that a phase shifts


def facts_in(manifest: Manifest) -> BackboneFacts:
    """Those of the bundle's backbone; EngineError where it has none.

    Its attention is compiled in, and its weights are where they compute.
    """
    model = manifest.models.get("backbone")
    if model is None:
        raise EngineError("the bundle holds no backbone")
    facts = backbone_facts(model["facts"])
    return replace(facts, runtime=manifest.runtime, head_dim=None, can_wait=False)


class BundleBackbone:
    """The engines of a bundle; where it has none for a shape, the eager network, if `runtime` is
    "auto"."""

    def __init__(self, bundle: OpenedBundle, config: RestoreConfig):
        self.facts = replace(facts_in(bundle.manifest), runtime=bundle.runtime)
        self.device, self.attend = bundle.device, None
        self._bundle, self._config = bundle, config
        self._phases = [tuple(phase) for phase in bundle.manifest.models["backbone"]["phases"]]
        self._fallback = Fallback(bundle, config)
        self._warned: set[tuple[int, ...]] = set()

    @torch.inference_mode()
    def prepare(self, prompt: str, negative_prompt: str, nodes: Sequence[Node]) -> BundleContext:
        given = prompt_inputs(self._bundle, (prompt, negative_prompt), self._config.prompt_embeds)
        times = {"cond": [n.t for n in nodes], "uncond": [n.tau for n in nodes]}
        chosen = {branch: [self._expert_at(t) for t in times[branch]] for branch in BRANCHES}
        used = sorted({expert for row in chosen.values() for expert in row[:-1]})
        flat = torch.tensor([*times["cond"], *times["uncond"]], device=self.device)
        tables = {expert: self._tables(expert, given | {"times": flat}) for expert in used}
        return BundleContext(tables, chosen, self._phases)

    def on_device(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor, condition: tuple[Part, ...]) -> Tensor:
        """See `Backbone.velocity`.

        ConfigError where there is no engine for the shape of x and the runtime was named.
        """
        bucket = self._bucket(x)
        sizes = [len(part.rows) for part in condition]
        split = zip(x.split(sizes), t.split(sizes), condition, strict=True)
        parts = [
            self._fallback(*one) if bucket is None else self._evaluate(bucket, *one)
            for one in split
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _expert_at(self, t: float) -> int:
        return max(i for i, t_from in enumerate(self.facts.experts) if t >= t_from)

    def _tables(self, expert: int, inputs: dict[str, Tensor]) -> Tables:
        made = self._bundle.engines[f"condition.{expert}"](inputs)
        return Tables(
            made["modulation"].unflatten(1, (2, -1)),
            made["final"].unflatten(0, (2, -1)),
            Text(made["keys"], made["values"]),
        )

    def _evaluate(self, bucket: Bucket, x: Tensor, t: Tensor, part: Part) -> Tensor:
        """The velocity of all samples of one expert, in as few calls as there are engines for."""
        if any(part.phase):
            x = x.roll([-shift for shift in part.phase], AXES)
        calls = [
            self._call(bucket, batch, x[some], t[some], part, some)
            for some, batch in batches(len(x), bucket.batches)
        ]
        v = calls[0] if len(calls) == 1 else torch.cat(calls)
        return v.roll(part.phase, AXES) if any(part.phase) else v

    def _call(
        self, bucket: Bucket, batch: int, x: Tensor, t: Tensor, part: Part, some: slice
    ) -> Tensor:
        """One call of an engine for `batch` samples; the last of fewer is repeated."""
        size = f"{batch}x{bucket.frames}x{bucket.height}x{bucket.width}"
        engine = self._bundle.engines[f"velocity.{part.expert}.{size}"]
        missing, rows = batch - len(x), part.rows[some]
        keys, values = part.text.of(rows + rows[-1:] * missing)
        inputs = {
            "x": _filled(x, missing),
            "modulation": _filled(part.modulation[:, some], missing, 1),
            "final": _filled(part.final[some], missing),
            "keys": keys,
            "values": values,
        }
        if "t" in engine.inputs:
            inputs["t"] = _filled(t, missing)
        return engine(inputs)["v"][: len(x)]

    def _bucket(self, x: Tensor) -> Bucket | None:
        """That of a tile x; None, and it is said once, where the network is to serve."""
        size = self._size(x)
        for bucket in self.facts.buckets:
            if (bucket.frames, bucket.height, bucket.width) == size:
                return bucket
        asked, has = listed([Bucket(*size, ())]), listed(self.facts.buckets)
        problem = f"{self._bundle.folder} has no engine for {asked}, but for {has}"
        if self._config.runtime != "auto":
            raise ConfigError(problem)
        if size not in self._warned:
            self._warned.add(size)
            logger.warning("%s: the network itself is evaluated", problem)
        return None

    def _size(self, x: Tensor) -> tuple[int, int, int]:
        """(frames, height, width) in pixels of a tile x of the state."""
        codec, (t, h, w) = self.facts.codec, x.shape[2:]
        frames = (t - 1) * codec.frames + 1 if codec.causal else t * codec.frames
        return frames, h * codec.pixels, w * codec.pixels


def _filled(x: Tensor, missing: int, axis: int = 0) -> Tensor:
    """x with its last part `missing` times more."""
    if not missing:
        return x
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([x, last.repeat_interleave(missing, axis)], axis)
