"""Times a pass of `mini` on a CPU by everything that can execute it, and what each one's result
differs by.

    python -m dtg_restore.bench.runtimes --json bench/results/runtimes_mini.json

Equal are weights, inputs and threads.  The sides take turns; `ratio` is the time of the plain
network, every op in plain torch, over the side's; `max_error` is relative to the largest value.
Runtimes that are not installed are named with the reason.  This is what `--runtime auto` rests on.

Floor and prediction, made before it was measured.  The pass is bound by its matrix products.
Inductor and AOTInductor call the same MKL products as the plain network and fuse what is between
them, which is a tenth to a fifth; oneDNN inside OpenVINO and the engine's own ops reach its peak,
so that both should be near 1.4; ONNX Runtime has products of its own, between the two.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ..engine.backbones import load_backbone
from ..engine.backbones.dit import Conditioning
from ..engine.backbones.mini import MiniBackbone
from ..engine.config import RestoreConfig
from ..engine.quantize import DYNAMIC
from ..engine.schedule import nodes
from ..export import velocity
from ..export.mini import velocity_stage
from ..export.onnx import export_backbone
from .peers import row, take_turns
from .provenance import provenance

PLAIN = "plain torch"
CPU = torch.device("cpu")
FRAMES, SIDE = 16, 64  # of a tile

Call = Callable[[], Tensor]


class Pass:
    """One pass of both branches over `tiles` tiles."""

    backbone: MiniBackbone
    x: Tensor
    t: Tensor
    condition: Conditioning

    def __init__(self, tiles: int, dtype: torch.dtype = torch.float32, weights: str = "auto"):
        backbone = load_backbone(RestoreConfig(weights=weights), CPU, dtype)
        assert isinstance(backbone, MiniBackbone)
        self.backbone = backbone
        table = nodes(RestoreConfig().dtg(backbone.facts.defaults))
        self.condition = backbone.prepare("clean", "null", table).at(0, ("cond", "uncond"), tiles)
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2 * tiles, 3, FRAMES, SIDE, SIDE, generator=generator)
        self.t = torch.tensor([table[0].t, table[0].tau]).repeat_interleave(tiles)

    def __call__(self) -> Tensor:
        return self.backbone.velocity(self.x, self.t, self.condition)

    def graph(self) -> torch.nn.Module:
        batch, _, frames, height, width = self.x.shape
        return velocity_stage(self.backbone.network, (batch, frames, height, width)).module

    def named(self) -> dict[str, Tensor]:
        return velocity.flatten(self.x, self.t, self.condition)


def plain(work: Pass) -> Call:
    def run() -> Tensor:
        with patch.dict(os.environ, DTG_KERNELS="reference"):
            return work()

    return run


def compiled(work: Pass) -> Call:
    graph = torch.compile(work.graph())
    inputs = tuple(work.named().values())
    return lambda: graph(*inputs)


def ahead_of_time(work: Pass, folder: Path) -> Call:
    graph = work.graph()
    inputs = tuple(t.contiguous() for t in work.named().values())
    program = torch.export.export(graph, inputs)
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(folder / "mini.pt2")
    )
    loaded = torch._inductor.aoti_load_package(package)
    return lambda: loaded(*inputs)


def onnx_file(work: Pass, folder: Path) -> Path:
    path = folder / "mini.onnx"
    if not path.exists():
        batch, _, frames, height, width = work.x.shape
        export_backbone(work.backbone, path, batch=batch, frames=frames, height=height, width=width)
    return path


def onnx_runtime(work: Pass, path: Path) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {name: tensor.contiguous().numpy() for name, tensor in work.named().items()}
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def onnx_runtime_int8(work: Pass, path: Path, folder: Path) -> Call:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = folder / "mini_int8.onnx"
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8, per_channel=True)
    return onnx_runtime(work, quantised)


def open_vino(work: Pass, path: Path) -> Call:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    inputs = [tensor.contiguous().numpy() for tensor in work.named().values()]
    return lambda: torch.from_numpy(model(inputs)[0])


def sides(work: Pass, tiles: int, folder: Path) -> Iterator[tuple[str, Callable[[], Call]]]:
    yield PLAIN, lambda: plain(work)
    yield "eager", lambda: work
    yield "eager, bf16", lambda: Pass(tiles, torch.bfloat16)
    yield "eager, int8-dynamic", lambda: Pass(tiles, weights=DYNAMIC)
    yield "eager, bf16 and int8-dynamic", lambda: Pass(tiles, torch.bfloat16, DYNAMIC)
    yield "torch.compile", lambda: compiled(work)
    yield "AOTInductor", lambda: ahead_of_time(work, folder)
    yield "ONNX Runtime", lambda: onnx_runtime(work, onnx_file(work, folder))
    yield (
        "ONNX Runtime, int8",
        lambda: onnx_runtime_int8(work, onnx_file(work, folder), folder),
    )
    yield "OpenVINO", lambda: open_vino(work, onnx_file(work, folder))


def ready(made: Iterator[tuple[str, Callable[[], Call]]]) -> tuple[dict[str, Call], dict[str, str]]:
    """The sides that run here, once called, and why the others do not."""
    able: dict[str, Call] = {}
    reasons: dict[str, str] = {}
    for name, make in made:
        try:
            call = make()
            call()
        except Exception as error:  # whatever a runtime raises, the others are still measured
            reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            able[name] = call
    return able, reasons


def rows_of(able: Mapping[str, Call], rounds: int) -> Iterator[dict[str, Any]]:
    times, results = take_turns(able, rounds, CPU)
    for name in able:
        yield row(name, PLAIN, times[PLAIN], times[name], results[name], results[PLAIN])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=4, help="in one call, for each branch")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, help="default: as torch has")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        able, reasons = ready(sides(Pass(options.tiles), options.tiles, Path(folder)))
        rows = list(rows_of(able, options.rounds))
    for found in rows:
        best = min(found["seconds"]["ours"])
        print(
            f"{found['name']:30} {best * 1e3:8.1f} ms  x{found['ratio']:.2f}  "
            f"error {found['max_error']:.1e}, {found['psnr']:.1f} dB"
        )
    for name, reason in reasons.items():
        print(f"{name:30} -  {reason}")
    settings = {"tiles": options.tiles, "rounds": options.rounds}
    settings |= {"threads": torch.get_num_threads(), "frames": FRAMES, "side": SIDE}
    result = {
        **{"provenance": provenance(), "settings": settings},
        **{"rows": rows, "not_run": reasons},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
