"""Times one step of guidance, by path: how branches are called, which kernels, which runtime.

    python -m dtg_restore.bench.step --json bench/results/step.json

The first path is the plainest: one call after the other, every op in plain torch.  `ratio` is its
time over that of the path, `max_error` the largest difference of the step's result over its largest
value.  "elided" is the same step without the unconditional branch: its error is that of leaving it
out at the first node, where it counts most.  All paths of a model take turns.

Models: `mini` on a tile of 16 x 128 x 128 with its own weights, `small` (width 512, 8 layers, on
the latents of 17 x 256 x 384) and, on a GPU, Wan 1.3B and 14B at 81 x 480 x 832, with random ones.

Floor and prediction, made before anything was measured.  On a CPU a step of `small` is bound by
matrix products: no path that makes both evaluations can be faster by more than the share of norms
and rotations, a tenth; elided it takes half.  `mini` is smaller: more of its time is in norms, in
rotations and in starting operators, so that batching and fusing should each give a tenth or two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ..engine.backbones import load_backbone
from ..engine.backbones.dit import Table, rows_of
from ..engine.backbones.wan import facts_for
from ..engine.backbones.wan_layout import WanConfig
from ..engine.branches import BATCHED, SEQUENTIAL, BranchPlan
from ..engine.config import DTG, RestoreConfig
from ..engine.devices import resolve_device, resolve_dtype
from ..engine.elision import Elision
from ..engine.errors import ConfigError
from ..engine.guidance import TiledBranches
from ..engine.heap import keep_freed_memory
from ..engine.reuse import Reuse
from ..engine.runtimes import RUNTIMES, on_runtime
from ..engine.sampler import sample
from ..engine.schedule import Node, nodes
from ..engine.types import Tile
from .kernels import seconds
from .provenance import provenance
from .wan import SIZES, TEXT_TOKENS, build

# Name -> network, and latents (C, T, H, W).
WAN = {
    "tiny": (SIZES["tiny"], (16, 2, 8, 8)),
    "small": (SIZES["small"], (16, 5, 32, 48)),
    "1.3B": (SIZES["1.3B"], (16, 21, 60, 104)),
    "14B": (SIZES["14B"], (16, 21, 60, 104)),
}
MINI = (3, 16, 128, 128)
DTG_STEP = DTG(t_start=0.5, steps=10, delta0=0.15, alpha0=1.8)

Path_ = Callable[[], Tensor]


class RandomWan:
    """A network with random weights as a backbone, and its constants as the context."""

    def __init__(self, config: WanConfig, device: torch.device, dtype: torch.dtype):
        torch.manual_seed(0)
        self.device, self._network = device, build(config, device, dtype)
        self.facts = facts_for(config, sum(p.numel() for p in self._network.parameters()))
        self._table: Table | None = None

    def prepare(self, prompt: str, negative_prompt: str, table: Sequence[Node]) -> RandomWan:
        times = torch.tensor([[n.t for n in table], [n.tau for n in table]], device=self.device)
        shape = (2, TEXT_TOKENS, self._network.config.text_dim)
        text = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        self._table = self._network.table(times, text.to(self.device))
        return self

    def at(self, index: int, branches: Sequence[str], repeat: int) -> Any:
        assert self._table is not None
        return self._table.at(index, rows_of(branches), repeat)

    def velocity(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        return self._network(x, condition)


class Compiled:
    """A backbone whose passes go through torch.compile."""

    def __init__(self, backbone: Any):
        self.device, self.prepare = backbone.device, backbone.prepare
        self.velocity = torch.compile(backbone.velocity)


def backbone_of(name: str, device: torch.device) -> tuple[Any, tuple[int, ...]]:
    """The backbone, and the shape of its state without the batch."""
    dtype = resolve_dtype("auto", device)
    if name == "mini":
        return load_backbone(RestoreConfig(), device, dtype), MINI
    config, shape = WAN[name]
    return RandomWan(config, device, dtype), shape


def step(backbone: Any, shape: tuple[int, ...], way: str, elided: bool = False) -> Path_:
    """The first step of a run: branches, and the state after it."""
    table = nodes(DTG_STEP)[:2]
    context = backbone.prepare("clean", "null", table)
    if elided:
        table = [node._replace(alpha=1.0, w_cond=1.0, w_uncond=0.0) for node in table]
    height, width = shape[-2:]
    branches = TiledBranches(
        *(backbone, context, table, [Tile(0, 0, height, width)], (height, width), 1),
        *(Reuse(Elision(0.0)), BranchPlan(way, {}, backbone.device)),
    )
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2)).to(backbone.device)
    return lambda: sample(branches, x, table)


def reference_kernels() -> AbstractContextManager[Any]:
    return patch.dict(os.environ, DTG_KERNELS="reference")


def paths(
    backbone: Any, shape: tuple[int, ...], compiled: bool
) -> Iterator[tuple[str, Path_, Callable[[], AbstractContextManager[Any]]]]:
    """Name, step, and the surroundings that it runs in."""
    for way in (SEQUENTIAL, BATCHED):
        yield f"{way}, reference kernels", step(backbone, shape, way), reference_kernels
    for way in (SEQUENTIAL, BATCHED):
        yield way, step(backbone, shape, way), nullcontext
    for name in (entry.name for entry in RUNTIMES if entry.name != "eager"):
        with suppress(ConfigError):  # this machine or this model is not for it
            wrapped = on_runtime(RestoreConfig(runtime=name), backbone)
            yield f"batched, {name}", step(wrapped, shape, BATCHED), nullcontext
    if compiled:
        yield "batched, torch.compile", step(Compiled(backbone), shape, BATCHED), nullcontext
    yield "elided", step(backbone, shape, BATCHED, elided=True), nullcontext


@torch.inference_mode()
def measure(name: str, device: torch.device, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    """One row a path."""
    backbone, shape = backbone_of(name, device)
    found = list(paths(backbone, shape, compiled))
    results, times = {}, []
    for path, call, surroundings in found:
        with surroundings():
            results[path] = call()
    for _ in range(rounds):
        times.append([timed(call, surroundings, device) for _, call, surroundings in found])
    return list(rows(name, results, dict(zip(results, zip(*times, strict=True), strict=True))))


def timed(
    call: Path_, surroundings: Callable[[], AbstractContextManager[Any]], device: torch.device
) -> float:
    with surroundings():
        return seconds(call, device)


def rows(
    name: str, results: Mapping[str, Tensor], times: Mapping[str, Sequence[float]]
) -> Iterator[dict[str, Any]]:
    first = next(iter(results))
    want = results[first]
    for path, got in results.items():
        yield {
            "model": name,
            "path": path,
            "best_s": min(times[path]),
            "median_s": statistics.median(times[path]),
            "ratio": round(min(times[first]) / min(times[path]), 3),
            "max_error": ((got - want).abs().max() / want.abs().max()).item(),
        }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:6} {row['path']:30} {row['best_s'] * 1e3:10.2f} ms  x{row['ratio']:.2f}   "
        f"error {row['max_error']:.1e}"
    )


def main() -> None:
    keep_freed_memory()  # as `restore` does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=("mini", *WAN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more path")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    device = resolve_device("auto")
    on_gpu = device.type == "cuda"
    found = []
    for name in options.models or (["mini", "small"] + (["1.3B", "14B"] if on_gpu else [])):
        for row in measure(name, device, options.rounds, options.compile):
            found.append(row)
            print(line(row), flush=True)
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    result = {"provenance": provenance(), "settings": settings, "rows": found}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
