"""Synthetic distortions with ground truth, seeded and continuous in their severity.

Two families.  *Generative*: smooth random geometric warps that differ from frame to frame and a
jitter of the whole frame, which is what makes generated video look as if it boiled.  *Classical*:
blur, loss of resolution, noise and compression (JPEG frame by frame, or H.264 over the clip).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = {"mild": 0.3, "medium": 0.6, "severe": 1.0}


@dataclass(frozen=True)
class Distortion:
    """Strength of every component; the defaults leave a clip as it is.

    Lengths are in pixels of the clip, `noise` is in units of the 0..1 range.
    """

    warp: float = 0.0  # rms displacement of the smooth warp
    warp_memory: float = 0.0  # correlation of the warp between neighbouring frames
    jitter: float = 0.0  # rms displacement of the whole frame
    blur: float = 0.0  # standard deviation
    shrink: float = 1.0  # factor of the loss of resolution
    noise: float = 0.0  # standard deviation
    crf: int = 0  # constant rate factor of H.264, 0 = none
    jpeg: int = 100  # quality, 100 = none

    @classmethod
    def sample(cls, severity: float, rng: np.random.Generator, keep: float = 1.0) -> Distortion:
        """Draw components up to `severity` (0..1); each is kept with probability `keep`."""

        def draw(low: float, high: float) -> float:
            return severity * rng.uniform(low, high) if rng.random() < keep else 0.0

        compressed = draw(0.5, 1.0)
        by_frame = rng.random() < 0.3
        return cls(
            warp=draw(0.8, 1.8),
            warp_memory=rng.uniform(0.0, 0.8),
            jitter=draw(0.1, 0.5),
            blur=draw(0.5, 1.4),
            shrink=1 + draw(0.5, 1.5),
            noise=draw(0.01, 0.05),
            crf=0 if by_frame or not compressed else round(20 + 18 * compressed),
            jpeg=round(95 - 65 * compressed) if by_frame and compressed else 100,
        )

    def describe(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def degrade(frames: Tensor, distortion: Distortion, rng: np.random.Generator) -> Tensor:
    """Apply `distortion` to frames (T, 3, H, W) in [0, 1]; the same shape and range comes back."""
    if distortion.warp or distortion.jitter:
        frames = warp(frames, distortion, rng)
    if distortion.blur:
        frames = gaussian_blur(frames, distortion.blur)
    if distortion.shrink > 1:
        frames = _shrink(frames, distortion.shrink)
    if distortion.noise:
        noise = rng.standard_normal(tuple(frames.shape), dtype=np.float32)
        frames = frames + distortion.noise * torch.from_numpy(noise)
    frames = frames.clamp(0, 1)
    if distortion.crf:
        # Without mbtree=0 some builds of x264 give other bytes at every run.
        options = {"crf": str(distortion.crf), "preset": "fast", "x264-params": "mbtree=0"}
        frames = _through_codec(frames, "libx264", options)
    if distortion.jpeg < 100:
        quantiser = str(round(2 + (95 - distortion.jpeg) / 65 * 18))
        frames = _through_codec(frames, "mjpeg", {"qmin": quantiser, "qmax": quantiser})
    return frames


def warp(
    frames: Tensor, distortion: Distortion, rng: np.random.Generator, cell: int = 14
) -> Tensor:
    """Smooth random displacement on a grid of about `cell` pixels, and jitter of whole frames."""
    count, _, height, width = frames.shape
    grid = (max(2, round(height / cell)), max(2, round(width / cell)))
    field = torch.empty(count, 2, *grid)
    memory, last = distortion.warp_memory, rng.standard_normal((2, *grid))
    for i in range(count):
        fresh = rng.standard_normal((2, *grid))
        last = memory * last + (1 - memory**2) ** 0.5 * fresh
        field[i] = torch.from_numpy(last)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=True)
    shift = torch.from_numpy(rng.standard_normal((count, 2, 1, 1))).float()
    pixels = distortion.warp * field + distortion.jitter * shift
    rows = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width)[None].expand(height, width)
    where = torch.stack(
        (
            columns + pixels[:, 0] * 2 / max(width - 1, 1),
            rows + pixels[:, 1] * 2 / max(height - 1, 1),
        ),
        dim=-1,
    )
    return F.grid_sample(
        frames, where, mode="bicubic", padding_mode="reflection", align_corners=True
    )


def gaussian_blur(frames: Tensor, sigma: float) -> Tensor:
    radius = max(1, int(3 * sigma + 0.5))
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(3, 1, -1)
    padded = F.pad(frames, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[..., None, :], groups=3), taps[..., None], groups=3)


def _shrink(frames: Tensor, factor: float) -> Tensor:
    size = frames.shape[-2:]
    small = [max(4, round(s / factor)) for s in size]
    down = F.interpolate(frames, small, mode="bicubic", antialias=True)
    return F.interpolate(down, size, mode="bicubic")


def _through_codec(frames: Tensor, codec: str, options: dict[str, str]) -> Tensor:
    """Encode and decode in memory; sizes are made even by the encoder's own padding."""
    height, width = frames.shape[-2:]
    even = F.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")
    bits = (even.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=24, options=options)
        stream.width, stream.height = bits.shape[2], bits.shape[1]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        for image in bits:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as source:
        decoded = [f.to_ndarray(format="rgb24") for f in source.decode(video=0)]
    back = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    return back[..., :height, :width]
