"""Times the Wan VAE of this package against the one of diffusers, on the same weights.

    python -m dtg_restore.bench.codec [--json FILE]

Both take turns in one process.  Equal are weights (random), frames and precision; the largest
difference of the results is reported.  Rates count the operations of plain convolutions, as
diffusers makes them, for both: a rate above the matrix peak says that operations were spared.
`floor_s` is the time of those that are left, products of the Winograd form as they are executed, at
the matrix peak, which is the better one of torch's two libraries; `share_of_floor` is it over ours.

Floor and prediction of the first form, made before it was written (one core, fp32, 98 GFLOP/s).
diffusers was known to run at 51 (encode) and 58 (decode) at small widths, where plain convolutions
in channels-last layout reached 105 to 115 at the widths of the published VAE: without its copies
and changes of layout, plain convolutions would be up to 2 times as fast, no more.  Beyond lies only
doing fewer multiplications: the Winograd form F(4 x 4, 3 x 3) took 1.9 to 2.6 times less than the
plain convolution, together 3 to 4 times.  At the published width, the default here, that was too
much to hope for: diffusers itself runs at 90 to 98 there, and what is left is the Winograd gain.

Floor and prediction of the present form, made before it was measured, for the small VAE
(`--base-dim 32 --frames 17 --size 384 256`, one core).  A decoding has 1580 GFLOP of convolutions,
about 395 in Winograd form: 3.7 s at the 108 GFLOP/s of oneDNN's product.  The first form took 13 s:
its batched products ran at 85, and half of its time went into transforms made as matrix products,
norms of four passes, copies and fresh memory.  One grouped convolution in time makes all products
of a run of tiles at 92 to 108.  What is left beside them moves memory, most of it at the widest
level: there 60 % of the floor were expected, 85 % at the narrowest, 70 % in all.

Found on a machine that was never idle, by processor time, so that the shares are lower bounds:
261 GFLOP are left in an encoding and 406 in a decoding, floors of 2.4 and 3.7 s; they took 5.0 and
8.4 s, 47 % and 44 %.  In turns of whole runs ours was 3.4 (encode) and 3.6 (decode) times as fast
as diffusers, the first form 1.9 and 1.8 times.  Convolutions by themselves, by the tenth percentile
of their calls, reached 65, 77 and 78 % at 32, 64 and 128 channels, near what was expected.  Not
foreseen was fresh memory: the system took 25 ms to hand out the 50 MB of a result, half as long as
the products that fill it, and takes 2 in pages of 2 MiB.  The rest is norms, shortcuts and
convolutions in time, each a pass of its own over memory.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..engine.codecs.wan import WanCodec, load_wan_vae
from ..engine.diffusers_folder import diffusers_class
from .kernels import seconds
from .live_bytes import LiveBytes
from .provenance import provenance

CPU = torch.device("cpu")
SIDES = ("diffusers", "ours")


def matrix_peak(rounds: int = 10, side: int = 1536) -> float:
    """Best measured rate of an fp32 matrix product by either library, in FLOP/s."""
    a, b = torch.rand(side, side), torch.rand(side, side)
    products: list[Callable[[], Tensor]] = [lambda: a @ b]
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(b, side)
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""))
    return 2 * side**3 / min(seconds(run, CPU) for _ in range(rounds) for run in products)


def executed_flop(run: Callable[[], Tensor]) -> int:
    """Operations of the products that are made, those in Winograd form among them."""

    def products(
        _: Any, form: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any
    ) -> int:
        return 2 * math.prod(out_shape) * form[1] * form[2]

    counted = {torch.ops.mkldnn._convolution_pointwise: products}
    counter = FlopCounterMode(display=False, custom_mapping=counted)
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def build(name: str, base_dim: int, folder: Path) -> Any:
    """diffusers' VAE with random weights, written to `folder`."""
    settings: dict[str, Any] = {"base_dim": base_dim}
    if name == "2.2":
        settings |= {
            **{"decoder_base_dim": base_dim * 3 // 2, "z_dim": 48, "is_residual": True},
            **{"patch_size": 2, "in_channels": 12, "out_channels": 12},
            **{"scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48},
        }
    vae = diffusers_class("AutoencoderKLWan")(**settings).eval().requires_grad_(False)
    vae.save_pretrained(folder)
    return vae


def directions(vae: Any, codec: WanCodec, frames: Tensor) -> dict[str, list[Callable[[], Tensor]]]:
    """For each direction theirs and ours, from and to the same values."""
    mean, std = (
        torch.tensor(vae.config[name])[None, :, None, None, None]
        for name in ("latents_mean", "latents_std")
    )
    z = codec.encode(frames)

    def encode() -> Tensor:
        pixels = frames.transpose(0, 1)[None] * 2 - 1
        return (vae.encode(pixels).latent_dist.mode() - mean) / std

    def decode() -> Tensor:
        return (vae.decode(z * std + mean).sample[0].transpose(0, 1) + 1) / 2

    return {
        "encode": [encode, lambda: codec.encode(frames)],
        "decode": [decode, partial(decoded, codec, z)],
    }


def decoded(codec: WanCodec, z: Tensor) -> Tensor:
    return torch.cat(list(codec.decode(z)))


@torch.inference_mode()
def measure(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    width, height = options.size
    torch.manual_seed(0)
    frames = torch.rand(options.frames, 3, height, width)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        vae = build(name, options.base_dim, folder)
        codec = load_wan_vae(folder, CPU, torch.float32)
        for direction, runs in directions(vae, codec, frames).items():
            yield {"vae": name, "direction": direction} | compare(runs, options.rounds)
        del vae
        tiled = load_wan_vae(folder, CPU, torch.float32, (width // 2, height // 2))
    yield {"vae": name, "direction": "decode in tiles"} | tiles_against_whole(
        tiled, codec, codec.encode(frames)
    )


def compare(runs: list[Callable[[], Tensor]], rounds: int) -> dict[str, Any]:
    """diffusers and ours in turns: times, rates, peaks, the largest difference."""
    with FlopCounterMode(display=False) as counter:
        want = runs[0]()
    difference = (runs[1]() - want).abs().max() / want.abs().max()
    flop = counter.get_total_flops()
    times = [[seconds(run, CPU) for run in runs] for _ in range(rounds)]
    row: dict[str, Any] = {"flop": flop, "max_difference_over_scale": difference.item()}
    for name, run, column in zip(SIDES, runs, zip(*times, strict=True), strict=True):
        row[name] = {
            "best_s": min(column),
            "median_s": statistics.median(column),
            "flop_per_s": flop / min(column),
            "peak_bytes": peak_bytes(run),
        }
    theirs, ours = (row[side]["best_s"] for side in SIDES)
    executed = executed_flop(runs[1])
    floor = executed / matrix_peak(4)
    row |= {"executed_flop": executed, "floor_s": floor, "share_of_floor": floor / ours}
    return row | {"ratio_of_best": theirs / ours}


def tiles_against_whole(tiled: WanCodec, whole: WanCodec, z: Tensor) -> dict[str, Any]:
    """What tiles of a quarter of the frame change, and what they hold in memory.

    The weights are random: this says that tiles change the result, not how much trained ones would.
    """
    one, other = (decoded(codec, z) for codec in (tiled, whole))
    return {
        "rms_difference": (one - other).pow(2).mean().sqrt().item(),
        "deviation": other.std().item(),
        "peak_bytes": {
            name: peak_bytes(partial(deque, codec.decode(z), maxlen=0))
            for name, codec in (("tiles", tiled), ("whole", whole))
        },
    }


def peak_bytes(run: Callable[[], Any]) -> int:
    with LiveBytes() as live:
        run()
    return live.peak


def line(row: dict[str, Any]) -> str:
    about = f"{row['vae']} {row['direction']}"
    if "rms_difference" in row:
        peaks = ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in row["peak_bytes"].items())
        return f"{about}  rms {row['rms_difference']:.3f} of {row['deviation']:.3f}   {peaks}"
    sides = [
        f"{name} {row[name]['best_s']:7.2f} s {row[name]['flop_per_s'] / 1e9:6.1f} GFLOP/s "
        f"{row[name]['peak_bytes'] / 1e6:6.0f} MB"
        for name in SIDES
    ]
    return (
        f"{about}  {'   '.join(sides)}   x{row['ratio_of_best']:.2f}   "
        f"difference {row['max_difference_over_scale']:.1e}   "
        f"floor {row['floor_s']:.2f} s, {row['share_of_floor']:.0%} of it reached"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-dim", type=int, default=96, help="96 is the published width of 2.1")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, nargs=2, default=[160, 96], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    peak = matrix_peak()
    print(f"matrix product {peak / 1e9:.0f} GFLOP/s on {options.threads} threads", flush=True)
    rows = []
    for name in ("2.1", "2.2"):
        for row in measure(name, options):
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        about = {"provenance": provenance(), "diffusers": version("diffusers")}
        result = about | {"settings": settings, "matrix_flop_per_s": peak, "rows": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()
