"""Start-up, step and memory of a restoration by what executes it: eager, torch.compile, bundles.

    python -m dtg_restore.bench.engines --model mini --json bench/results/engines_mini.json

Every side restores the same chunk of a clip, as one tile, in a process of its own; the sides take
turns, `--rounds` times.  A row has of each process

    start       seconds from its start to the end of the first step: interpreter, libraries, models
                (of a bundle: the check of all its sums), encoder, both branches;
    step        the best of its later steps;
    peak_bytes  the most memory that it held;

and the difference of its frames to those of eager, which are of one process and the same weights.
`start_ratio` and `step_ratio` are eager's best over that of the side, `first_start` is the start in
the first round: torch.compile compiles in it, into a cache that is empty before, and finds its code
there later.  `export` is the seconds it took to make the bundle, null where it was in the cache.
What cannot run here is named with the reason.

Models: `mini`, 16 frames of 128 x 128 with its own weights, and `wan`, a Wan model with random ones
(width 512, 6 layers, 27 million parameters, VAE of base 16, 9 frames of 192 x 128, fp32).

Floor and prediction, made before it was measured.  No side starts faster than Python with torch,
two to three seconds; a bundle should be within a tenth of eager there, for ONNX Runtime's import
and the sums against weights that need not be laid out, and torch.compile ten seconds later with a
full cache and a minute with an empty one.  A step is bound by matrix products: with weights packed
for oneDNN AOTInductor has eager's own (1.0), ONNX Runtime products of its own and no attention in
one pass (0.9 to 1.0), torch.compile MKL's (0.85).  A bundle holds less than eager, whose networks
are read, then cast: by half the weights; torch.compile holds its compiler besides, some 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..engine.devices import resolve_device
from ..engine.errors import DTGError
from ..engine.heap import keep_freed_memory
from ..engine.report import peak_memory
from ..engine.restorer import Restorer
from ..engine.run import Run
from ..engine.runtimes.engines import reasons
from ..engine.types import Progress
from ..export.build import build_bundle
from ..export.request import ExportRequest
from .pattern import moving
from .peers import row as compared
from .provenance import provenance
from .random_wan import WanSize, model_folder

EAGER, COMPILE = "eager", "torch.compile"
BUNDLES = ("ort", "aot", "tensorrt")
SIDES = (EAGER, "graph", COMPILE, *BUNDLES)


class Subject(NamedTuple):
    """A model (a name or a path), the chunk that is restored (frames, height, width), and the
    embeddings of its prompts, where it takes text."""

    model: str
    size: tuple[int, int, int]
    prompts: str | None = None


def subject(name: str) -> Subject:
    if name == "mini":
        return Subject("mini", (16, 128, 128))
    size = WANS[name]
    folder = model_folder(size)
    prompts = str(folder / "prompts.safetensors")
    return Subject(str(folder), (size.frames, size.height, size.width), prompts)


WANS = {
    "wan": WanSize(8, 64, 6, 2048, 16, 9, 128, 192, text_dim=512, text_tokens=128),
    "tiny": WanSize(2, 12, 1, 24, 4, 5, 16, 16, text_dim=16, text_tokens=4),
}


# -- one process ----------------------------------------------------------------------------------


class Compiled:
    """A backbone whose passes go through torch.compile.

    It takes no tensors of inference mode, so that those of a pass are copied, and the pass runs
    outside of that mode.
    """

    def __init__(self, backbone: Any):
        self.facts, self.device, self.attend = backbone.facts, backbone.device, backbone.attend
        self.prepare, self.on_device = backbone.prepare, backbone.on_device
        eager = type(backbone).velocity.__wrapped__  # without its inference mode
        self._compiled = torch.compile(partial(eager, backbone))

    def velocity(self, *given: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return self._compiled(*tree_map_only(Tensor, Tensor.clone, given))


def run_side(side: str, model: str, settings: Mapping[str, Any], frames: Tensor) -> dict[str, Any]:
    """Restore the frames (T, 3, H, W); when each step ended, memory, and the frames that came."""
    runtime = side if side in (EAGER, "graph") else "auto"
    restorer = Restorer.load(backbone=model, sr="none", runtime=runtime, **settings)
    if side == COMPILE:
        restorer = replace(restorer, backbone=Compiled(restorer.backbone))
    ends: list[float] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "refine":
            if restorer.device.type == "cuda":
                torch.cuda.synchronize(restorer.device)
            ends.append(time.time())

    size = (frames.shape[-2], frames.shape[-1])
    run = Run(
        *(restorer.config, restorer.backbone, restorer.codec, None, restorer.plan(*size)),
        *(restorer.device, size, on_progress),
    )
    restored = torch.stack(list(run.frames(iter(frames), 0, None))).cpu()
    return {"ends": ends, "peak": peak_memory(), "restored": restored}


def child(options: argparse.Namespace) -> None:
    keep_freed_memory()  # as `restore` does
    torch.set_num_threads(options.threads)
    given = torch.load(options.child)
    made = run_side(given["side"], given["model"], given["settings"], given["frames"])
    torch.save(made, options.child)


# -- all of them ----------------------------------------------------------------------------------


def settings_of(about: Subject, steps: int, threads: int) -> dict[str, Any]:
    """One chunk of one tile; both branches in one call, at every step."""
    frames, height, width = about.size
    return {
        **{"chunk": frames, "overlap": 0, "tile": (width, height), "tile_overlap": 0},
        **{"t_start": 0.5, "steps": steps, "delta0": 0.15, "alpha0": 1.5, "space": "velocity"},
        **{"branches": "batched", "threads": threads, "prompt_embeds": about.prompts},
    }


def bundle_of(side: str, about: Subject) -> tuple[str, float | None]:
    """The folder of the bundle, and the seconds that it took."""
    frames, height, width = about.size
    request = ExportRequest(
        backbone=about.model,
        sr="none",
        prompt_embeds=about.prompts,
        to=side,
        tile=((width, height),),
        chunk=frames,
        batch=(2,),
    )
    start = time.perf_counter()
    built = build_bundle(request)
    seconds = time.perf_counter() - start
    return str(built.folder), None if built.was_cached else seconds


def able_sides(device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    missing = {side: reasons(side) for side in BUNDLES}
    if device.type != "cuda":
        for side in ("graph", "tensorrt"):
            missing.setdefault(side, []).append("there is no GPU")
    able = [side for side in SIDES if not missing.get(side)]
    return able, {side: "; ".join(found) for side, found in missing.items() if found}


def process(
    side: str, model: str, settings: Mapping[str, Any], frames: Tensor, folder: Path
) -> dict[str, Any]:
    """One process of a side: seconds of its start and of each later step, peak, and frames."""
    file = folder / "call.pt"
    torch.save({"side": side, "model": model, "settings": settings, "frames": frames}, file)
    command = [sys.executable, "-m", f"{__package__}.engines", "--child", str(file)]
    command += ["--threads", str(settings["threads"])]
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")} if side == COMPILE else {}
    start = time.time()
    done = subprocess.run(command, env=os.environ | cache, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    made: dict[str, Any] = torch.load(file)
    ends = made["ends"]
    steps = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return {"start": ends[0] - start, "steps": steps, **made}


def measure(
    about: Subject, sides: Sequence[str], rounds: int, steps: int, threads: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row a side, and why others have none."""
    settings = settings_of(about, steps, threads)
    frames = torch.stack(list(moving(*about.size)))
    models, export, failed = {}, {}, {}
    for side in sides:
        try:
            found = bundle_of(side, about) if side in BUNDLES else (about.model, None)
        except DTGError as error:
            failed[side] = str(error)
            continue
        models[side], export[side] = found
    done: dict[str, list[dict[str, Any]]] = {side: [] for side in models}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(rounds):
            for side in reversed(done) if index % 2 else done:
                if side in failed:
                    continue
                try:
                    one = process(side, models[side], settings, frames, Path(folder))
                except RuntimeError as error:  # whatever a runtime raises, the others go on
                    failed[side] = str(error)
                else:
                    done[side].append(one)
    if EAGER in failed:
        raise RuntimeError(f"eager cannot run: {failed[EAGER]}")
    made = {side: runs for side, runs in done.items() if side not in failed}
    return list(rows(made, export)), failed


def rows(
    made: Mapping[str, Sequence[Mapping[str, Any]]], export: Mapping[str, float | None]
) -> Iterator[dict[str, Any]]:
    """From all processes of all sides; eager is the first."""
    eager = made[EAGER]
    for side, runs in made.items():
        starts = [run["start"] for run in runs]
        steps = [min(run["steps"]) for run in runs]
        result = compared(
            *(side, EAGER, [min(run["steps"]) for run in eager], steps),
            *(runs[-1]["restored"], eager[-1]["restored"]),
        )
        yield {
            "name": side,
            "start": min(starts),
            "first_start": starts[0],
            "step": min(steps),
            "start_ratio": round(min(run["start"] for run in eager) / min(starts), 3),
            "step_ratio": result["ratio"],
            "peak_bytes": {
                where: min(run["peak"][where] for run in runs) for where in runs[0]["peak"]
            },
            "export": export.get(side),
            "max_error": result["max_error"],
            "psnr": result["psnr"],
            "seconds": {"start": starts, "step": steps},
        }


def line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['name']:14} start {row['start']:6.2f} s (first {row['first_start']:6.2f})  "
        f"step {row['step'] * 1e3:8.1f} ms x{row['step_ratio']:.2f}  "
        f"{row['peak_bytes']['host'] / 1e6:6.0f} MB  {row['psnr']:.1f} dB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("mini", *WANS), default="mini")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="default: all that can run here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    able, missing = able_sides(resolve_device("auto"))
    sides = [side for side in able if side == EAGER or side in (options.sides or SIDES)]
    about = subject(options.model)
    found, failed = measure(about, sides, options.rounds, options.steps, options.threads)
    for row in found:
        print(line(row))
    for side, reason in (missing | failed).items():
        print(f"{side:14} -  {reason}")
    settings = {k: v for k, v in vars(options).items() if k not in ("json", "child")}
    settings |= {"frames": about.size[0], "height": about.size[1], "width": about.size[2]}
    result = {"provenance": provenance(), "settings": settings, "rows": found}
    result["not_run"] = missing | failed
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
