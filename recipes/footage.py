"""Real clips and photos as training crops: decoded once into a cache, then cut at random.

A photo becomes a clip by a camera path (drift, zoom, rotation).  Held-out groups are never cut.
"""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np

from dtg_restore.bench.material import CLIP_FOLDERS, HELD_OUT, PHOTO_FOLDERS

# The demo clip is made of these pictures, and it must show material that training never saw.
DEMO = ("skimage_",)
CLIP_SIDE, PHOTO_SIDE = 360, 512  # short side in the cache: sources are soft beyond it


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def decode_clip(path: Path, side: int = CLIP_SIDE) -> np.ndarray:
    """All frames of a clip, (T, H, W, 3) uint8, short side at most `side`."""
    with av.open(str(path)) as source:
        return np.stack([_fit(f.to_ndarray(format="rgb24"), side) for f in source.decode(video=0)])


def _sources(data: Path) -> list[tuple[Path, str]]:
    clips = [(p, "clip") for d in CLIP_FOLDERS for p in sorted((data / d).glob("*.mp4"))]
    photos = [(p, "photo") for d in PHOTO_FOLDERS for p in sorted((data / d).glob("*.jpg"))]
    return [
        (path, kind) for path, kind in clips + photos if not path.name.startswith(HELD_OUT + DEMO)
    ]


class Footage:
    """The training material of `data`, cached in `cache` as one .npy a source."""

    def __init__(self, data: Path, cache: Path):
        cache.mkdir(parents=True, exist_ok=True)
        self.clips, self.photos = [], []
        for path, kind in _sources(data):
            stored = cache / f"{path.parent.name}_{path.stem}.npy"
            if not stored.exists():
                self._decode(path, kind, stored)
            frames = np.load(stored, mmap_mode="r")
            (self.clips if kind == "clip" else self.photos).append(frames)

    @staticmethod
    def _decode(path: Path, kind: str, stored: Path) -> None:
        if kind == "clip":
            frames = decode_clip(path)
        else:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            frames = _fit(image, PHOTO_SIDE)[None]
        partial = stored.with_suffix(".partial.npy")
        np.save(partial, frames)
        partial.rename(stored)

    def cut(self, rng: np.random.Generator, frames: int, side: int) -> np.ndarray:
        """A random crop (frames, side, side, 3) uint8; six in ten come from clips."""
        if rng.random() < 0.6:
            crop = self._cut_clip(rng, frames, side)
        else:
            crop = self._cut_photo(rng, frames, side)
        if rng.random() < 0.5:
            crop = crop[:, :, ::-1]
        if rng.random() < 0.5:
            crop = crop[::-1]
        return np.ascontiguousarray(crop)

    def _cut_clip(self, rng: np.random.Generator, frames: int, side: int) -> np.ndarray:
        while True:
            clip = self.clips[rng.integers(len(self.clips))]
            if len(clip) >= frames:
                break
        stride = 2 if rng.random() < 0.2 and len(clip) >= 2 * frames else 1
        start = rng.integers(len(clip) - (frames - 1) * stride)
        limit = min(clip.shape[1:3]) / side
        span = round(side * rng.uniform(1.0, min(1.8, limit)))
        y, x = (rng.integers(s - span + 1) for s in clip.shape[1:3])
        part = clip[start : start + frames * stride : stride, y : y + span, x : x + span]
        return np.stack(
            [cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in np.array(part)]
        )

    def _cut_photo(self, rng: np.random.Generator, frames: int, side: int) -> np.ndarray:
        """A camera path over a photo: drift, zoom and rotation at constant speed."""
        photo = self.photos[rng.integers(len(self.photos))][0]
        margin = 24
        limit = min(photo.shape[:2]) / (side + 2 * margin)
        span = int((side + 2 * margin) * min(limit, rng.uniform(1.0, 2.0)))
        y, x = (rng.integers(s - span + 1) for s in photo.shape[:2])
        size = side + 2 * margin
        view = np.array(photo[y : y + span, x : x + span])
        view = cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
        speed = rng.normal(0, 1.2, 2).clip(-3, 3) * (rng.random() < 0.85)
        zoom, turn = rng.normal(0, 0.004), math.radians(rng.normal(0, 0.35))
        out = []
        for i in range(frames):
            k = i - (frames - 1) / 2
            cos, sin = (f(turn * k) * math.exp(zoom * k) for f in (math.cos, math.sin))
            centre = size / 2 + np.clip(speed * k, -margin + 4, margin - 4)
            matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
            matrix[:, 2] = centre - matrix[:, :2] @ np.array([side / 2, side / 2])
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            out.append(
                cv2.warpAffine(
                    view, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT
                )
            )
        return np.stack(out)
