"""Wan at its published sizes: memory by tracing, and where there is a GPU the time of a step.

    python -m dtg_restore.bench.wan memory --json bench/results/wan_memory.json
    python -m dtg_restore.bench.wan step --json bench/results/wan_step.json

`memory` needs no GPU and no weights: a pass of the network runs on the meta device, where tensors
have sizes and nothing else, and the bytes of all that are alive at once are counted.  Attention is
counted as a fused kernel: its inputs and its output.

`step` fills the network with random weights and times one step of guidance, both branches, at
81 frames of 832 x 480.  The floor, written down before anything was optimised: with n = 32760
tokens an evaluation is 283 TFLOP for 1.3B and 1676 TFLOP for 14B, of which self-attention is 70 %
and 52 %; at the 790 TFLOP/s that an H200 reaches in a plain matrix product, a step of two takes
0.72 s and 4.2 s.  Prediction for the eager path: 45 to 60 % of that peak.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from ..engine.backbones.dit import Table
from ..engine.backbones.wan import TEXT_TOKENS, facts_for
from ..engine.backbones.wan_dit import WanDiT
from ..engine.backbones.wan_layout import WanConfig
from ..engine.backbones.wan_weights import held_dtype
from ..engine.devices import resolve_device, resolve_dtype
from ..engine.offload import module_bytes
from ..engine.plan import matmul_flops
from .kernels import seconds
from .live_bytes import LiveBytes
from .provenance import provenance

PATCH = (1, 2, 2)
SIZES = {
    "1.3B": WanConfig(1536, 12, 30, 8960, 16, 4096, 256, PATCH),
    "5B": WanConfig(3072, 24, 30, 14336, 48, 4096, 256, PATCH),
    "14B": WanConfig(5120, 40, 40, 13824, 16, 4096, 256, PATCH),
    "small": WanConfig(512, 8, 8, 2048, 16, 4096, 256, PATCH),
    "tiny": WanConfig(96, 2, 2, 192, 16, 64, 64, PATCH),  # to try the command on a CPU
}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def build(config: WanConfig, device: torch.device, dtype: torch.dtype) -> WanDiT:
    """The network with random weights, norms and tables in fp32 as when it is loaded."""
    with torch.device("meta"):
        network = WanDiT(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(held_dtype(name, dtype))
    network.to_empty(device=device)
    if device.type != "meta":
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return network


def constants(network: WanDiT, device: torch.device, nodes: int) -> Table:
    times = torch.rand(2, nodes, device=device)
    text = torch.randn(2, TEXT_TOKENS, network.config.text_dim, device=device)
    return network.table(times, text)


@contextmanager
def fused_attention() -> Iterator[None]:
    """On the meta device torch would write the scores out."""
    real = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, *_, **__: torch.empty_like(query)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


@torch.inference_mode()
def trace(config: WanConfig, dtype: torch.dtype, batch: int = 2) -> dict[str, Any]:
    """Bytes of weights and constants, and those of a pass per token, as the slope of two sizes."""
    meta = torch.device("meta")
    network = build(config, meta, dtype)
    table = constants(network, meta, nodes=11)
    peaks, tokens = [], []
    for rows in (30, 60):
        x = torch.empty(batch, config.channels, 21, rows, 104, device=meta)
        with fused_attention(), LiveBytes() as count:
            network(x, table.at(0, slice(0, batch), 1))
        peaks.append(count.peak)
        tokens.append(batch * 21 * rows // 2 * 52)
    per_token = (peaks[1] - peaks[0]) / (tokens[1] - tokens[0])
    held = [table.modulation, table.final, *(t for pair in table.keys_values for t in pair)]
    return {
        "weights_bytes": module_bytes(network),
        "constants_bytes": sum(tensor.nbytes for tensor in held),
        "bytes_per_token": round(per_token, 1),
        "live_channels": round(per_token / config.dim / dtype.itemsize, 2),
    }


@torch.inference_mode()
def step(config: WanConfig, frames: int, height: int, width: int, repeats: int) -> dict[str, Any]:
    """One step of guidance: both branches in one batch, and one after the other."""
    device = resolve_device("auto")
    dtype = resolve_dtype("auto", device)
    network = build(config, device, dtype)
    table = constants(network, device, nodes=2)
    facts = facts_for(config, parameters=0)
    cell = facts.codec.pixels
    size = (facts.codec.latent_frames(frames), height // cell, width // cell)
    x = torch.randn(2, config.channels, *size, device=device)
    pair, single = table.at(0, slice(0, 2), 1), table.at(0, slice(0, 1), 1)
    peak = matmul_flops(device)
    flops = 2 * facts.flops(frames, height, width)
    result: dict[str, Any] = {"matmul_flops_per_second": peak, "flops_per_step": flops}
    for name, call in (
        ("batched", lambda: network(x, pair)),
        ("sequential", lambda: [network(x[:1], single) for _ in range(2)]),
    ):
        took, held = timed(call, device, repeats)
        result[name] = {
            "seconds": round(took, 4),
            "share_of_peak": round(flops / took / peak, 3),
            "peak_bytes": held,
        }
    return result


def timed(call: Any, device: torch.device, repeats: int) -> tuple[float, int | None]:
    """Median seconds of a call after one to warm up, and the peak of the device's memory."""
    is_cuda = device.type == "cuda"
    call()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    found = median(seconds(call, device) for _ in range(repeats))
    return found, torch.cuda.max_memory_allocated(device) if is_cuda else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "step"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1.3B", "5B", "14B"])
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[832, 480], metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    width, height = options.size
    rows = {}
    for name in options.sizes:
        if options.what == "memory":
            rows[name] = {d: trace(SIZES[name], dtype) for d, dtype in DTYPES.items()}
        else:
            rows[name] = step(SIZES[name], options.frames, height, width, options.repeats)
        print(name, json.dumps(rows[name]), flush=True)
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    found = {"provenance": provenance(), "settings": settings, "rows": rows}
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
