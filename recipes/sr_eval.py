"""Held-out measurement of the super-resolution networks: PSNR-Y on Vid4 beside bicubic.

python recipes/sr_eval.py --data DATA mini-x2 mini-x4 --out bench/results/sr_mini.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from sr_data import crop_to_multiple, gaussian_blur, h264, jpeg, shrink, to_tensor, to_uint8
from torch import Tensor
from torch.nn import functional as F

from dtg_restore.engine.sr import SuperResolver, load_sr

CLIPS = ("calendar", "city", "walk")
# LR of each kind: standard deviation of the blur in LR pixels, then a codec.
KINDS = {
    "clean": (0.0, None, 0),
    "mild h264": (0.3, h264, 16),  # crf
    "mild jpeg": (0.3, jpeg, 90),  # quality
    "medium h264": (0.4, h264, 20),
    "medium jpeg": (0.4, jpeg, 80),
    "strong h264": (0.5, h264, 24),
    "strong jpeg": (0.5, jpeg, 70),
}
Pairs = dict[tuple[str, str], tuple[Tensor, Tensor]]


def luma(frames: Tensor) -> Tensor:
    """BT.601 studio-swing Y on the 0..255 scale, of frames rounded to 8 bits."""
    red, green, blue = ((frames * 255).round().clamp(0, 255) / 255).unbind(1)
    return 65.481 * red + 128.553 * green + 24.966 * blue + 16


def psnr_y(result: Tensor, truth: Tensor, border: int) -> float:
    """Mean over frames of PSNR-Y in dB, `border` pixels cropped on each side."""
    error = (luma(result) - luma(truth))[:, border:-border, border:-border]
    return float((10 * torch.log10(255**2 / error.double().pow(2).mean(dim=(1, 2)))).mean())


def bicubic(frames: Tensor, scale: int) -> Tensor:
    """The baseline: bicubic upscaling with a = -0.5."""
    return F.interpolate(frames, scale_factor=scale, mode="bicubic", antialias=True)


def make_lr(hr: np.ndarray, scale: int, kind: str) -> np.ndarray:
    """LR of one clip (T, H, W, 3) uint8, all frames through the codec together."""
    blur, codec, level = KINDS[kind]
    frames = gaussian_blur(to_tensor(hr), blur * scale, blur * scale)
    lr = to_uint8(shrink(frames, scale))
    return codec(lr, level) if codec else lr


def vid4_pairs(data: Path, scale: int, kept: slice = slice(None)) -> Pairs:
    """(clip, kind) -> the frames `kept` of LR and HR."""
    pairs = {}
    for clip in CLIPS:
        paths = sorted((data / "vsr" / f"vid4_{clip}" / "gt").glob("*.png"))
        hr = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        hr = crop_to_multiple(hr, scale)
        for kind in KINDS:
            lr = make_lr(hr, scale, kind)
            pairs[clip, kind] = to_tensor(lr[kept]), to_tensor(hr[kept])
    return pairs


def measure(upscale: Callable[[Tensor], Tensor], pairs: Pairs, scale: int) -> dict[str, dict]:
    """PSNR-Y in dB: kind -> clip -> value, and the mean over the clips."""
    table: dict[str, dict[str, float]] = {}
    for (clip, kind), (lr, hr) in pairs.items():
        table.setdefault(kind, {})[clip] = round(psnr_y(upscale(lr), hr, scale), 3)
    for row in table.values():
        row["mean"] = round(sum(row.values()) / len(row), 3)
    return table


def seconds_per_frame(sr: SuperResolver, height: int, width: int, threads: int) -> float:
    """Fastest of five runs on one frame of noise: other work on the machine only ever adds."""
    torch.set_num_threads(threads)
    frames = torch.rand(1, 3, height, width)
    sr.upscale(frames)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        sr.upscale(frames)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(1)
    return round(min(times), 3)


def report(name: str, data: Path) -> dict:
    sr = load_sr(name)
    scale = sr.facts.scale
    pairs = vid4_pairs(data, scale)
    baseline = measure(lambda lr: bicubic(lr, scale), pairs, scale)
    result = measure(sr.upscale, pairs, scale)
    half = load_sr(name, dtype=torch.bfloat16)
    low = measure(half.upscale, pairs, scale)
    return {
        "facts": vars(sr.facts),
        "bicubic_psnr_y": baseline,
        "psnr_y": result,
        "gain": {k: round(result[k]["mean"] - baseline[k]["mean"], 3) for k in KINDS},
        "gain_bf16": {k: round(low[k]["mean"] - baseline[k]["mean"], 3) for k in KINDS},
        "seconds_per_frame_854x480": {
            f"{label}, {threads} threads": seconds_per_frame(model, 480, 854, threads)
            for label, model in (("fp32", sr), ("bf16", half))
            for threads in (1, 2)
        },
    }


def provenance() -> dict:
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "machine": f"{cpu[0].split(': ')[1]}, {len(cpu)} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "x264": "as in that av build",
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or paths of weights")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds vsr/vid4_*")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {
        k: f"blur {b} LR px, {c.__name__ if c else 'no codec'} {n}"
        for k, (b, c, n) in KINDS.items()
    }
    result = {
        "provenance": provenance(),
        "settings": {"clips": "Vid4 calendar, city, walk, 8 frames each", "kinds": kinds},
        "models": {name: report(name, args.data) for name in args.models},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
