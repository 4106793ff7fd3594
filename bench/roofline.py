"""The floor of every stage, from its operations and this machine's ceilings, and the share reached.

    python -m dtg_restore.bench.roofline --json bench/results/roofline.json

The ceilings, a large matrix product and a large copy, are measured before every stage, and the
best counts.  A stage's operations are those that torch counts for its matrix products and
convolutions; its floor is the larger of operations over the first ceiling and of its inputs,
outputs and weights over the second.  A share above 1 means that the machine was busy whenever a
ceiling was measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..engine.devices import resolve_device, resolve_dtype
from ..engine.offload import module_bytes
from ..engine.plan import matmul_flops
from ..engine.restorer import Restorer
from ..engine.schedule import nodes
from .kernels import seconds
from .provenance import provenance
from .wan import SIZES, build, constants


class Stage(NamedTuple):
    name: str
    call: Callable[[], Tensor]
    module: nn.Module
    inputs: Tensor


def copy_bandwidth(device: torch.device, seconds: float = 0.3) -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.empty(2**27 // (1 if device.type == "cuda" else 4), device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += 1
    return 2 * source.nbytes * count / elapsed


def stages(device: torch.device, dtype: torch.dtype) -> list[Stage]:
    wan = build(SIZES["small"], device, dtype)
    table = constants(wan, device, nodes=2)
    x = torch.randn(2, 16, 5, 32, 48, device=device)
    restorer = Restorer.load(backbone="mini", sr="mini-x2")
    backbone: Any = restorer.backbone
    upscaler: Any = restorer.sr
    dtg = restorer.config.dtg(backbone.facts.defaults)
    condition = backbone.prepare("clean", "null", nodes(dtg)).at(0, ["cond", "uncond"], 4)
    z, t = torch.randn(8, 3, 16, 64, 64, device=device), torch.full((8,), 0.1, device=device)
    frame = torch.rand(1, 3, 256, 256)
    return [
        Stage("small Wan, a pass", lambda: wan(x, table.at(0, slice(0, 2), 1)), wan, x),
        Stage("mini, a pass", lambda: backbone.velocity(z, t, condition), backbone.network, z),
        Stage("mini-x2, a frame", lambda: upscaler.upscale(frame), upscaler.module, frame),
    ]


def measure(stage: Stage, device: torch.device, rounds: int) -> dict[str, Any]:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        result = stage.call()
    times = [seconds(stage.call, device) for _ in range(rounds)]
    return {
        "stage": stage.name,
        "flop": counter.get_total_flops(),
        "bytes": stage.inputs.nbytes + result.nbytes + module_bytes(stage.module),
        "median_s": median(times),
        "best_s": min(times),
    }


def against_floor(row: dict[str, Any], flops: float, moved: float) -> dict[str, Any]:
    floor = max(row["flop"] / flops, row["bytes"] / moved)
    return row | {"floor_s": floor, "share_of_floor": round(floor / row["best_s"], 3)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    device = resolve_device("auto")
    flops = moved = 0.0
    rows = []
    for stage in stages(device, resolve_dtype("auto", device)):
        flops = max(flops, *(matmul_flops(device, 0.1) for _ in range(10)))
        moved = max(moved, *(copy_bandwidth(device) for _ in range(3)))
        rows.append(measure(stage, device, options.rounds))
    rows = [against_floor(row, flops, moved) for row in rows]
    for row in rows:
        print(json.dumps(row))
    found = {
        "provenance": provenance(),
        "matmul_flops_per_second": flops,
        "copy_bytes_per_second": moved,
        "rows": rows,
    }
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
