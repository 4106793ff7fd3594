"""Times a whole run, and its parts, against diffusers on the same weights; `mini` against itself.

    python -m dtg_restore.bench.peers --preset small --out bench/results/peers_small.json

Equal are weights (random), clip, start, steps, times, noise, resolution and precision.  The sides
take turns in one process, the first one changing; a ratio is that of the best times, and beside it
stands what the results differ by.  `ratio` is the peer's time over ours.  "whole" has
classifier-free guidance on both sides.  "whole, elided" is lookahead guidance with `elide_tol`,
whose error is to the same run without it, and whose time is compared with both branches of the
peer.

`--steps` and `--strength` mean what diffusers means by them: of the steps of a full denoising the
last share is made.  The defaults, 20 at strength 0.5, make 10 steps from t = 0.5 to 0, which is 20
evaluations with both branches.

`--compile` adds diffusers with torch.compile as a second peer: the transformer and the encoder and
decoder of its VAE, each as a whole, in the default mode on a CPU and with max-autotune on a GPU.
Its rows say what was compiled and how long the first calls took, which no other time includes.
Some minutes go by before the first row; later runs find most of it in torch's cache.

Presets: `small` (width 512, 8 layers, VAE of base 32, 17 frames of 384 x 256, fp32), `wan-1.3b`
(81 frames of 832 x 480, bf16; on a GPU), `mini` (the embedded model on the demo clip, against its
own path of separate calls and reference kernels).

Floor and prediction for `small`, made before it was measured.  An evaluation is 197
GFLOP, of which diffusers' text projections are 3 %.  At the 101 GFLOP/s that two idle cores reach,
20 evaluations take 41 s, and diffusers' DiT was known to be there already; its VAE took 46 s at
half of that rate.  Left is: text computed once (1 s), the VAE in Winograd form at half of the time
(23 s).  That gives 87 s / 63 s, 1.4 times, for the exact result.  With gaps of about 0.3 and a
tolerance of 0.02 elision saves 4 of 20 evaluations: 87 s / 55 s, 1.6 times.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.branches import BranchPlan, model_key
from ..engine.devices import fast_products, resolve_device
from ..engine.elision import Elision
from ..engine.guidance import TiledBranches
from ..engine.heap import keep_freed_memory
from ..engine.media import open_reader
from ..engine.quantize import DYNAMIC
from ..engine.restorer import Restorer
from ..engine.reuse import Reuse
from ..engine.run import Run
from ..engine.schedule import nodes
from ..engine.types import Tile
from .kernels import seconds
from .pattern import moving
from .provenance import ROOT, provenance
from .random_wan import COMPILED_PARTS, Diffusers, WanSize, model_folder

SIZES = {
    "small": WanSize(8, 64, 8, 2048, 32, 17, 256, 384),
    "wan-1.3b": WanSize(12, 128, 30, 8960, 96, 81, 480, 832, "bf16"),
}
PRESETS = (*SIZES, "mini")
DEMO = ROOT / "assets" / "demo.mp4"
CLIP = ROOT.parent / "shared" / "data" / "clips" / "garden_path_hero7_1.mp4"
SCALE = 3.0  # of classifier-free guidance
WITH_COMPILE = "diffusers + torch.compile"

Row = dict[str, Any]
Sides = Mapping[str, Callable[[], Tensor]]
Compared = tuple[dict[str, list[float]], dict[str, Tensor]]


def take_turns(sides: Sides, rounds: int, device: torch.device) -> Compared:
    """Seconds of every call, and the last result, by side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Tensor] = {}
    for index in range(rounds):
        order = list(sides.items())
        for name, call in reversed(order) if index % 2 else order:

            def run(name: str = name, call: Callable[[], Tensor] = call) -> None:
                results[name] = call()

            times[name].append(seconds(run, device))
    return times, results


def row(
    name: str, peer: str, theirs: list[float], ours: list[float], got: Tensor, want: Tensor
) -> Row:
    """One comparison; `max_error` and `psnr` are relative to the largest value of `want`."""
    got, want = got.float().cpu(), want.float().cpu()
    scale = want.abs().max()
    mse = ((got - want) / scale).square().mean()
    return {
        "name": name,
        "peer": peer,
        "ratio": round(min(theirs) / min(ours), 3),
        "max_error": ((got - want).abs().max() / scale).item(),
        "psnr": round((-10 * torch.log10(mse + 1e-20)).item(), 2),
        "deviation": want.std().item(),
        "seconds": {"peer": theirs, "ours": ours},
    }


def read_clip(size: WanSize, path: Path = CLIP) -> Tensor:
    """Frames (T, 3, H, W): the middle of a real clip where it is there, else a moving pattern."""
    if path.is_file():
        with open_reader(path, 0, size.frames) as reader:
            frames = torch.stack(list(islice(reader, size.frames)))
        if len(frames) == size.frames:
            return F.interpolate(frames, (size.height, size.width), mode="area")
    return torch.stack(list(moving(size.frames, size.height, size.width)))


@torch.inference_mode()
def against_diffusers(size: WanSize, options: argparse.Namespace) -> Iterator[Row]:
    """Parts first: they also settle how our branches are called, and warm both sides up."""
    device, folder, frames = resolve_device("auto"), model_folder(size), read_clip(size)
    peers = {"diffusers": Diffusers(folder, size, device)}
    if options.compile:
        peers[WITH_COMPILE] = Diffusers(folder, size, device, options.compile)
    ours = restorer_of(size, folder, options.steps, options.strength)
    warm = options.compile or device.type == "cuda"
    first: dict[str, float] = {}
    for name, sides in parts(ours, peers, frames).items():
        if warm:
            took, _ = take_turns(sides, 1, device)
            first[name] = round(took.get(WITH_COMPILE, [0.0])[0], 1)
        for found in rows_of(name, *take_turns(sides, options.part_rounds, device)):
            yield found | about_compiled(found, peers, first)
    for found in whole(ours, peers, frames, options):
        yield found | about_compiled(found, peers, first)


def restorer_of(size: WanSize, folder: Path, steps: int, strength: float) -> Restorer:
    """Ours on the model at `folder`, with the guidance and the steps of diffusers' pipeline."""
    return Restorer.load(
        backbone=str(folder),
        prompt_embeds=str(folder / "prompts.safetensors"),
        sr="none",
        dtype=size.dtype,
        guidance="cfg",
        alpha0=SCALE,
        steps=steps_made(steps, strength),
        t_start=strength,
    )


def steps_made(steps: int, strength: float) -> int:
    """Of `steps` those that diffusers makes at `strength`."""
    return max(1, min(int(steps * strength), steps))


def rows_of(name: str, times: dict[str, list[float]], results: dict[str, Tensor]) -> Iterator[Row]:
    for peer in (side for side in times if side != "ours"):
        yield row(name, peer, times[peer], times["ours"], results["ours"], results[peer])


def about_compiled(
    found: Row, peers: Mapping[str, Diffusers], first: Mapping[str, float]
) -> dict[str, Any]:
    """For a row against torch.compile: the modules, the mode, and seconds of the first calls."""
    if found["peer"] != WITH_COMPILE:
        return {}
    peer = peers[WITH_COMPILE]
    return {"compiled": {"parts": peer.compiled, "mode": peer.mode, "first_call_s": dict(first)}}


def parts(ours: Restorer, peers: Mapping[str, Diffusers], frames: Tensor) -> dict[str, Sides]:
    """Both branches of the first step, and the two ways of the VAE, on the same values."""
    assert ours.backbone is not None and ours.codec is not None
    codec, z = ours.codec, ours.codec.encode(frames)
    table = nodes(ours.config.dtg(ours.backbone.facts.defaults))
    with ours.backbone.on_device():
        context = ours.backbone.prepare("", "", table)
    height, width = z.shape[-2:]
    plan = BranchPlan("auto", model_key(ours.backbone.facts, ours.config), ours.device)
    branches = TiledBranches(
        *(ours.backbone, context, table, [Tile(0, 0, height, width)], (height, width), 1),
        *(Reuse(Elision(0.0)), plan),
    )

    def velocities() -> Tensor:
        v_cond, v_uncond = branches(z, 0)
        assert v_uncond is not None
        return torch.cat([v_cond, v_uncond])

    t = table[0].t
    return {
        "DiT": {n: p.branches(z, t) for n, p in peers.items()} | {"ours": velocities},
        "VAE encode": {n: partial(p.encode, frames) for n, p in peers.items()}
        | {"ours": lambda: codec.encode(frames)},
        "VAE decode": {n: partial(p.decode, z) for n, p in peers.items()}
        | {"ours": lambda: torch.cat(list(codec.decode(z)))},
    }


class Ours:
    """Our restoration of frames, and what its last run reports."""

    def __init__(self, restorer: Restorer, frames: Tensor):
        self._restorer, self._frames = restorer, frames
        self._run: Run | None = None

    def __call__(self) -> Tensor:
        ours, size = self._restorer, (self._frames.shape[-2], self._frames.shape[-1])
        self._run = Run(
            *(ours.config, ours.backbone, ours.codec, ours.sr, ours.plan(*size)),
            *(ours.device, size),
        )
        return torch.stack(list(self._run.frames(iter(self._frames), 0, None)))

    def evaluations(self) -> Row:
        """How many evaluations were made and saved, and how branches were called."""
        assert self._run is not None
        report = self._run.report()
        return {name: report[name] for name in ("evaluations", "elision", "reuse", "branches")}


def whole(
    ours: Restorer, peers: Mapping[str, Diffusers], frames: Tensor, options: argparse.Namespace
) -> Iterator[Row]:
    assert ours.backbone is not None
    times = [node.t for node in nodes(ours.config.dtg(ours.backbone.facts.defaults))][:-1]
    lookahead = ours.configure(guidance="dtg", alpha0=None, schedule="exponential")
    plain, exact = Ours(ours, frames), Ours(lookahead, frames)
    tolerances = {"elide_tol": options.elide_tol, "reuse_tol": options.reuse_tol}
    elided = Ours(lookahead.configure(**tolerances), frames)
    sides: dict[str, Callable[[], Tensor]] = {
        name: partial(peer.restore, frames, times, SCALE) for name, peer in peers.items()
    }
    sides |= {"ours": plain, "elided": elided, "exact": exact}
    took, results = take_turns(sides, options.rounds, ours.device)
    for peer in peers:
        yield plain.evaluations() | row(
            "whole", peer, took[peer], took["ours"], results["ours"], results[peer]
        )
    for peer, theirs in ({name: took[name] for name in peers} | {"ours": took["exact"]}).items():
        yield elided.evaluations() | row(
            "whole, elided", peer, theirs, took["elided"], results["elided"], results["exact"]
        )


def against_itself(options: argparse.Namespace) -> Iterator[Row]:
    """`mini`, stage one: every call by itself and every op in plain torch, against the default, and
    that in other precisions and with less exact settings.  Errors are to the plain path but for
    elision, whose error is to the same run without it."""
    with open_reader(DEMO) as reader:
        frames = torch.stack(list(islice(reader, options.frames)))
    ours = Restorer.load(backbone="mini", sr="none")
    fast = fast_products() if ours.device.type == "cpu" else []
    plain = Ours(ours.configure(branches="sequential"), frames)

    def unfused() -> Tensor:
        with patch.dict(os.environ, DTG_KERNELS="reference"):
            return plain()

    quick = {"elide_tol": options.elide_tol}
    runs = {"whole": Ours(ours, frames), "whole, elided": Ours(ours.configure(**quick), frames)}
    if "bf16" in fast:
        bf16 = Restorer.load(ours.config, dtype="bf16")
        runs["whole, bf16"] = Ours(bf16, frames)
        runs["whole, bf16, elided"] = Ours(bf16.configure(**quick), frames)
    if {"bf16", "int8"} <= set(fast):
        int8 = Restorer.load(ours.config, dtype="bf16", weights=DYNAMIC)
        runs["whole, bf16 and int8-dynamic"] = Ours(int8, frames)
    runs["whole"]()  # settles how branches are called
    took, results = take_turns({"peer": unfused, **runs}, options.rounds, ours.device)
    for name, run in runs.items():
        full = name.removesuffix(", elided")
        want = results["peer" if full == name else full]
        yield run.evaluations() | row(
            name, "sequential, reference kernels", took["peer"], took[name], results[name], want
        )


def line(found: Row) -> str:
    theirs, ours = (min(found["seconds"][side]) for side in ("peer", "ours"))
    saved = (found.get("elision") or {}).get("saved")
    return (
        f"{found['name']:28} {found['peer']:29} {theirs:8.2f} s {ours:8.2f} s "
        f"x{found['ratio']:.2f}   error {found['max_error']:.1e}, {found['psnr']:.1f} dB"
        + (f", {saved} evaluations saved" if saved else "")
    )


def main() -> None:
    keep_freed_memory()  # as `restore` does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where to write the JSON")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="all",
        choices=COMPILED_PARTS,
        help="torch.compile as a second peer, of these parts (without a value: all)",
    )
    parser.add_argument("--steps", type=int, default=20, help="of a full denoising")
    parser.add_argument("--strength", type=float, default=0.5, help="share of it that is made")
    parser.add_argument("--elide-tol", type=float, default=0.1)
    parser.add_argument("--reuse-tol", type=float, default=0.1, help="of small and wan-1.3b")
    parser.add_argument("--rounds", type=int, default=2, help="of whole runs")
    parser.add_argument("--part-rounds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=48, help="of the demo clip, for mini")
    options = parser.parse_args()
    if options.preset == "wan-1.3b" and not torch.cuda.is_available():
        parser.error("the preset wan-1.3b needs a GPU, and none is there")
    if options.preset == "mini":
        found = against_itself(options)
    else:
        found = against_diffusers(SIZES[options.preset], options)
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    rows: list[Row] = []
    result = {"provenance": provenance(), "settings": settings, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for each in found:
        rows.append(each)
        print(line(each), flush=True)
        # After every row: a run that is cut off has not been for nothing.
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
