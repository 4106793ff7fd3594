"""Training material for the super-resolution networks: aligned (LR, HR) pairs, made once.

Every picture is degraded ahead of training by real codecs (JPEG and H.264), because a frame that
comes out of a video pipeline carries exactly those traces; training then only slices crops.
Variant 0 of a picture is always the clean one: antialiased bicubic and nothing else.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dtg_restore.bench.material import HELD_OUT
from dtg_restore.engine.media.planes import frame_to_rgb, rgb_to_frame
from dtg_restore.engine.types import ColourTags

BT601 = ColourTags(matrix="bt601")
NUM_DEGRADED = 6
DEGRADED_SHARE = 0.65  # of the crops
# Names begin with these: CC-BY-SA, the demo clip's pictures, the scenes that are measured on.
LEFT_OUT = ("avif_fox", "avif_hato", "skimage_", *HELD_OUT)


@dataclass(frozen=True)
class Picture:
    """One HR picture (H, W, 3) uint8 and its LR variants, from clean to most degraded."""

    name: str
    hr: np.ndarray
    variants: list[np.ndarray]
    weight: float


# ------------------------------------------------------------------------------- degradations


def to_tensor(images: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def to_uint8(frames: Tensor) -> np.ndarray:
    """(T, 3, H, W) in [0, 1] -> (T, H, W, 3) uint8, rounded."""
    rounded = (frames * 255).round().clamp(0, 255).to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).contiguous().numpy()


def shrink(frames: Tensor, scale: float, mode: str = "bicubic") -> Tensor:
    """Antialiased resize by 1 / scale; bicubic has a = -0.5, as in the published benchmarks."""
    height, width = (round(side / scale) for side in frames.shape[-2:])
    return F.interpolate(frames, (height, width), mode=mode, antialias=True)


def gaussian_blur(frames: Tensor, sigma_y: float, sigma_x: float) -> Tensor:
    """Separable Gaussian blur with replicated borders; sigma in pixels, 0 = none."""
    for axis, sigma in ((2, sigma_y), (3, sigma_x)):
        if sigma < 0.05:
            continue
        radius = max(1, round(3 * sigma))
        taps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
        weight = (kernel / kernel.sum()).expand(3, 1, 1, -1)
        weight = weight.mT if axis == 2 else weight
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        frames = F.conv2d(F.pad(frames, pad, mode="replicate"), weight, groups=3)
    return frames


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """(T, H, W, 3) uint8 through JPEG with 4:2:0 chroma."""

    def one(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return np.stack([one(image) for image in images])


def h264(images: np.ndarray, crf: int, preset: str = "medium") -> np.ndarray:
    """(T, H, W, 3) uint8 through x264 with 4:2:0 chroma; odd sizes are padded by a row or column.

    Colours go through our own conversion: that of swscale darkens by half a code value, which a
    network would learn to undo.
    """
    num_frames, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1"}
        for rgb in to_tensor(padded):
            container.mux(stream.encode(rgb_to_frame(rgb, "yuv420p", BT601)))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        decoded = [frame_to_rgb(frame) for frame in container.decode(video=0)]
    if len(decoded) != num_frames:
        raise RuntimeError(f"{len(decoded)} frames came back of {num_frames}")
    return to_uint8(torch.stack(decoded))[:, :height, :width]


def degrade(hr: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
    """Mild blur, downscaling, light noise, JPEG or H.264: what a refined frame may still carry."""
    frames = to_tensor(hr)
    if rng.random() < 0.8:
        sigma = rng.uniform(0.1, 0.65) * scale
        frames = gaussian_blur(frames, sigma, sigma * rng.uniform(0.75, 1.0))
    frames = shrink(frames, scale, "bicubic" if rng.random() < 0.8 else "bilinear")
    if rng.random() < 0.4:
        channels = 1 if rng.random() < 0.5 else 3
        noise = rng.standard_normal((len(hr), channels, *frames.shape[-2:]), dtype=np.float32)
        frames = frames + torch.from_numpy(noise) * rng.uniform(0.5, 4) / 255
    images, lottery = to_uint8(frames), rng.random()
    if lottery < 0.4:
        return jpeg(images, int(rng.integers(60, 96)))
    if lottery < 0.9:
        return h264(images, int(rng.integers(14, 28)))
    return images


# ---------------------------------------------------------------------------------- the cache


def crop_to_multiple(images: np.ndarray, scale: int) -> np.ndarray:
    height, width = (side - side % scale for side in images.shape[1:3])
    return images[:, :height, :width]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def make_pictures(
    name: str, hr: np.ndarray, scale: int, weight: float, keep: slice, rng: np.random.Generator
) -> Iterator[Picture]:
    """Degrade (T, H, W, 3) as one clip, then keep the frames `keep` as single pictures."""
    hr = crop_to_multiple(hr, scale)
    clean = to_uint8(shrink(to_tensor(hr), scale))
    degraded = [degrade(hr, scale, rng) for _ in range(NUM_DEGRADED)]
    variants = [clean, *sorted(degraded, key=lambda lr: difference(lr, clean))]
    for index in range(len(hr))[keep]:
        yield Picture(name, hr[index], [v[index] for v in variants], weight)


def read_photos(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """(name, (1, H, W, 3) uint8, weight) of each photo, whole and at 0.6 of its size.

    Small photos were JPEG files already: they are halved first, which hides the blocks, and count
    less; the tiny ones among them are left out.
    """
    with open(folder / "SOURCES.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["file"].startswith(LEFT_OUT)]
    for row in rows:
        image = Image.open(folder / row["file"]).convert("RGB")
        name, soft = row["file"], "kept at its size" in row["note"]
        if soft and min(image.size) < 288:
            continue
        size_factors = (0.5,) if soft else (1.0, 0.6)
        for factor in size_factors:
            size = tuple(round(side * factor) for side in image.size)
            picture = image if factor == 1.0 else image.resize(size, Image.Resampling.BICUBIC)
            weight = (0.5 if soft else 2.0 if "_detail" in name else 1.0) * (factor < 1 or 1.5)
            yield name, np.array(picture)[None], weight


def read_clips(folder: Path, length: int = 9) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (length, H, W, 3) uint8) from two places of each clip."""
    for path in sorted(folder.glob("*.mp4")):
        if path.name.startswith(LEFT_OUT):
            continue
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for start in (len(frames) // 6, (2 * len(frames)) // 3):
            yield path.name, np.stack(frames[start : start + length])


def all_pictures(data: Path, scale: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Everything that may be trained on; the evaluation folders are never opened."""
    for folder in ("photos", "photos2"):
        for name, image, weight in read_photos(data / folder):
            yield from make_pictures(name, image, scale, weight, slice(None), rng)
    for folder in ("clips", "clips2"):
        for name, images in read_clips(data / folder):
            yield from make_pictures(name, images, scale, 0.5, slice(0, None, 4), rng)


def write_pictures(pictures: Iterable[Picture], folder: Path) -> None:
    """One file of pixels and an index of (offset, height, width)."""
    index, offset = [], 0
    with open(folder / "pixels.bin", "wb") as pixels:
        for picture in pictures:
            places = []
            for image in (picture.hr, *picture.variants):
                pixels.write(np.ascontiguousarray(image).tobytes())
                places.append((offset, *image.shape[:2]))
                offset += image.size
            index.append({"name": picture.name, "weight": picture.weight, "images": places})
    (folder / "index.json").write_text(json.dumps(index))


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures that `write_pictures` wrote, as views of a memory map."""
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")

    def view(offset: int, height: int, width: int) -> np.ndarray:
        return pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    pictures = []
    for row in json.loads((folder / "index.json").read_text()):
        hr, *variants = (view(*place) for place in row["images"])
        pictures.append(Picture(row["name"], hr, variants, row["weight"]))
    return pictures


def load_pictures(data: Path, cache: Path, scale: int, seed: int = 0) -> list[Picture]:
    """All training pictures at one scale: made once (some minutes), then mapped from `cache`."""
    folder = cache / f"sr_x{scale}_seed{seed}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        write_pictures(all_pictures(data, scale, np.random.default_rng(seed)), partial)
        partial.rename(folder)
    return read_pictures(folder)


# ----------------------------------------------------------------------------------- sampling


class CropSampler:
    """Random aligned crops, a third from clean and the rest from degraded LR.

    Of two candidate places the busier one is taken three times out of four: flat sky teaches
    little.
    """

    def __init__(self, pictures: list[Picture], scale: int, side: int, rng: np.random.Generator):
        self.pictures = [p for p in pictures if min(p.variants[0].shape[:2]) >= side]
        area = np.array([p.hr.size * p.weight for p in self.pictures], dtype=np.float64)
        self.probability = area / area.sum()
        self.scale, self.side, self.rng = scale, side, rng

    def batch(self, size: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """LR (B, 3, side, side) and HR (B, 3, s side, s side), both in [0, 1]."""
        chosen = self.rng.choice(len(self.pictures), size, p=self.probability)
        pairs = [self._crop(self.pictures[index]) for index in chosen]
        lr, hr = (to_tensor(np.stack(images)).to(device) for images in zip(*pairs, strict=True))
        return lr, hr

    def _crop(self, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
        rng, side, s = self.rng, self.side, self.scale
        lr = picture.variants[0]
        if rng.random() < DEGRADED_SHARE:  # the milder, the more often
            lr = picture.variants[rng.integers(1, len(picture.variants), size=2).min()]
        y, x = self._place(lr)
        lr = lr[y : y + side, x : x + side]
        hr = picture.hr[s * y : s * (y + side), s * x : s * (x + side)]
        quarter_turns, flip = rng.integers(4), rng.random() < 0.5
        turned = [np.rot90(image, quarter_turns) for image in (lr, hr)]
        lr, hr = (image[:, ::-1] if flip else image for image in turned)
        return lr, hr

    def _place(self, lr: np.ndarray) -> tuple[int, int]:
        limits = (lr.shape[0] - self.side + 1, lr.shape[1] - self.side + 1)
        places = [tuple(self.rng.integers(limits)) for _ in range(2)]
        if self.rng.random() < 0.25:
            return places[0]
        green = lr[..., 1]
        return max(places, key=lambda p: green[p[0] :, p[1] :][: self.side, : self.side].std())
