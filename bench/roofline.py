"""The floor of every stage, from its operations and this machine's ceilings, and the share reached.

    python -m dtg_restore.bench.roofline --json bench/results/roofline.json

The ceilings are the best known ones (`bench.ceilings`): a matrix product by either library, and a
large copy.  They are measured before every stage, and the best counts.  A stage's operations are
those that are made in matrix products and convolutions: the VAE in Winograd form is held to the
products that it makes, not to those that it spares.  Its floor is the larger of
operations over the first ceiling and of its inputs, outputs and weights over the second.  A share
above 1 means that the machine was busy whenever a ceiling was measured.

The last row is the whole way of a clip through `small` (17 frames of 384 x 256, 10 steps, both
branches): its floor is the sum of those of its parts.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..engine.backbones.wan import facts_for
from ..engine.devices import resolve_device, resolve_dtype
from ..engine.heap import keep_freed_memory
from ..engine.offload import module_bytes
from ..engine.restorer import Restorer
from ..engine.schedule import nodes
from ..kernels import OPS
from ..kernels.dispatch import ENV
from . import peers
from .ceilings import copy_bandwidth, matmul_rates
from .kernels import seconds
from .provenance import provenance
from .random_wan import WanSize, model_folder
from .wan import SIZES, build, constants

SPARING = ("winograd_conv3d",)  # ops that make fewer products than their formula has
WHOLE = "small Wan, whole"
CLIP_SMALL, CLIP_1_3B = (17, 256, 384), (81, 480, 832)  # frames, height, width
STEPS, STRENGTH = 20, 0.5  # as in `bench.peers`

Row = dict[str, Any]


class Stage(NamedTuple):
    """`flop` is None where torch can count it; `times` is how often the whole run makes it."""

    name: str
    call: Callable[[], Tensor]
    inputs: Tensor
    weight_bytes: int
    flop: float | None = None
    times: int = 0


def stages(device: torch.device, dtype: torch.dtype) -> Iterator[Stage]:
    yield wan_pass("small", CLIP_SMALL, device, dtype)
    if device.type == "cuda":
        yield wan_pass("1.3B", CLIP_1_3B, device, dtype)
    yield from mini(device)


def wan_pass(
    name: str, clip: tuple[int, int, int], device: torch.device, dtype: torch.dtype
) -> Stage:
    """Both branches in one batch, through the network alone."""
    wan = build(SIZES[name], device, dtype)
    table = constants(wan, device, nodes=2)
    frames, height, width = clip
    x = torch.randn(2, 16, 1 + frames // 4, height // 8, width // 8, device=device)
    condition = table.at(0, slice(0, 2), 1)
    flop = 2 * facts_for(SIZES[name], parameters=0).flops(*clip)
    return Stage(f"{name} Wan, a pass", lambda: wan(x, condition), x, module_bytes(wan), flop)


def mini(device: torch.device) -> Iterator[Stage]:
    restorer = Restorer.load(backbone="mini", sr="mini-x2")
    backbone: Any = restorer.backbone
    upscaler: Any = restorer.sr
    dtg = restorer.config.dtg(backbone.facts.defaults)
    condition = backbone.prepare("clean", "null", nodes(dtg)).at(0, ["cond", "uncond"], 4)
    z, t = torch.randn(8, 3, 16, 64, 64, device=device), torch.full((8,), 0.1, device=device)
    frame = torch.rand(1, 3, 256, 256)
    yield Stage(
        "mini, a pass",
        lambda: backbone.velocity(z, t, condition),
        z,
        module_bytes(backbone.network),
    )
    yield Stage(
        "mini-x2, a frame", lambda: upscaler.upscale(frame), frame, module_bytes(upscaler.module)
    )


class SmallPipeline:
    """Parts and whole of a clip's way through a Wan with random weights."""

    def __init__(self, size: WanSize):
        folder, self._frames = model_folder(size), peers.read_clip(size)
        self._ours = peers.restorer_of(size, folder, STEPS, STRENGTH)
        self._folder = folder
        self.restore = peers.Ours(self._ours, self._frames)

    def stages(self) -> Iterator[Stage]:
        assert self._ours.backbone is not None and self._ours.codec is not None
        sides = peers.parts(self._ours, {}, self._frames)
        z = self._ours.codec.encode(self._frames)
        steps = peers.steps_made(STEPS, STRENGTH)
        for name, inputs, part, prefixes, times in (
            ("VAE encode", self._frames, "vae", ("encoder.", "quant_conv."), 1),
            ("DiT", z, "transformer", ("blocks.", "patch_embedding.", "proj_out."), steps),
            ("VAE decode", z, "vae", ("decoder.", "post_quant_conv."), 1),
        ):
            call, weights = sides[name]["ours"], weight_bytes(self._folder / part, prefixes)
            yield Stage(f"small Wan, {name}", call, inputs, weights, times=times)


def weight_bytes(folder: Path, prefixes: tuple[str, ...]) -> int:
    """Of the weights of a model of diffusers whose names begin so, in fp32."""
    with safe_open(folder / "diffusion_pytorch_model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if name.startswith(prefixes)]  # noqa: SIM118
        return sum(4 * prod(weights.get_slice(name).get_shape()) for name in names)


def counted_flop(call: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Operations of a call's matrix products and convolutions, and its result.

    torch counts what it computes itself.  Ops therefore run as their references, which make the
    same products, but for those that exist to make fewer.
    """
    plain = ",".join(f"{op.name}=reference" for op in OPS if op.name not in SPARING)
    counter = FlopCounterMode(display=False, custom_mapping=further_products())
    with patch.dict(os.environ, {ENV: plain}), sdpa_kernel(SDPBackend.MATH), counter:
        result = call()
    return counter.get_total_flops(), result


def further_products() -> dict[Any, Callable[..., int]]:
    """Those that torch makes but does not count."""
    found: dict[Any, Callable[..., int]] = {torch.ops.aten.baddbmm_: _batched_flop}
    if torch.backends.mkldnn.is_available():
        found[torch.ops.mkldnn._linear_pointwise] = _linear_flop
        found[torch.ops.mkldnn._convolution_pointwise] = _convolution_flop
    return found


def _batched_flop(_: Sequence[int], a: Sequence[int], b: Sequence[int], **__: Any) -> int:
    return 2 * prod(a) * b[-1]


def _linear_flop(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(x) * weight[0]


def _convolution_flop(
    _: Sequence[int], weight: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any
) -> int:
    return 2 * prod(out_shape) // out_shape[1] * prod(weight)


def measure(stage: Stage, device: torch.device, rounds: int) -> Row:
    result = stage.call()  # the first call also settles how branches are called
    flop = stage.flop or counted_flop(stage.call)[0]
    times = [seconds(stage.call, device) for _ in range(rounds)]
    return {
        "stage": stage.name,
        "flop": flop,
        "bytes": stage.inputs.nbytes + result.nbytes + stage.weight_bytes,
        "times_in_whole": stage.times,
        "median_s": median(times),
        "best_s": min(times),
    }


def whole(rows: Sequence[Row], times: Sequence[float]) -> Row:
    """The row of a run that makes every stage so often as it says, and took `times`."""
    parts = [row for row in rows if row["times_in_whole"]]
    total = {
        name: sum(row[name] * row["times_in_whole"] for row in parts) for name in ("flop", "bytes")
    }
    return {
        **{"stage": WHOLE, **total, "times_in_whole": 0},
        **{"median_s": median(times), "best_s": min(times)},
        "parts": {row["stage"]: row["times_in_whole"] for row in parts},
    }


def against_floor(row: Row, flops: float, moved: float, floors: Mapping[str, float]) -> Row:
    """The row with its floor and its share of it; that of a whole is the sum of its parts'."""
    if "parts" in row:
        floor = sum(floors[name] * times for name, times in row["parts"].items())
    else:
        floor = max(row["flop"] / flops, row["bytes"] / moved)
    return row | {
        "floor_s": floor,
        "share_of_floor": round(floor / row["best_s"], 3),
        "flop_per_s": row["flop"] / row["best_s"],
        "share_of_peak": round(row["flop"] / row["best_s"] / flops, 3),
        "flop_per_byte": row["flop"] / row["bytes"],
    }


class Ceilings:
    """The best that was seen so far."""

    def __init__(self, device: torch.device):
        self._device = device
        self.products: dict[str, float] = {}
        self.copy = 0.0

    def look(self) -> None:
        for name, rate in matmul_rates(self._device).items():
            self.products[name] = max(rate, self.products.get(name, 0.0))
        self.copy = max(self.copy, copy_bandwidth(self._device))


@torch.inference_mode()
def rows_of(device: torch.device, options: argparse.Namespace, ceilings: Ceilings) -> list[Row]:
    rows = []
    for stage in stages(device, resolve_dtype("auto", device)):
        ceilings.look()
        rows.append(measure(stage, device, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
    if find_spec("diffusers") is None:
        print("the stages of the small pipeline are left out: diffusers is not here to write it")
        return rows
    pipeline = SmallPipeline(peers.SIZES["small"])
    for stage in pipeline.stages():
        ceilings.look()
        rows.append(measure(stage, device, options.part_rounds))
        print(json.dumps(rows[-1]), flush=True)
    ceilings.look()
    rows.append(whole(rows, [seconds(pipeline.restore, device) for _ in range(options.whole)]))
    ceilings.look()
    return rows


def main() -> None:
    keep_freed_memory()  # as `restore` does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of a pass")
    parser.add_argument("--part-rounds", type=int, default=2, help="of the parts of small")
    parser.add_argument("--whole", type=int, default=1, help="runs of the whole of small")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    device = resolve_device("auto")
    ceilings = Ceilings(device)
    rows = rows_of(device, options, ceilings)
    flops = max(ceilings.products.values())
    floors: dict[str, float] = {}
    for index, row in enumerate(rows):
        rows[index] = against_floor(row, flops, ceilings.copy, floors)
        floors[row["stage"]] = rows[index]["floor_s"]
        print(f"{row['stage']:24} {rows[index]['share_of_floor']:6.1%} of the floor")
    found = {
        "provenance": provenance(),
        "settings": {k: v for k, v in vars(options).items() if k != "json"},
        "products_flop_per_s": ceilings.products,
        "matmul_flops_per_second": flops,
        "copy_bytes_per_second": ceilings.copy,
        "rows": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
