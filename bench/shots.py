"""Cuts found in films with known cuts: the engine's own detector and those of PySceneDetect.

Films are put together from real clips, with what is mistaken for a cut: flashes, fast pans, fades,
dissolves.  A cut counts as found at its exact frame alone.  The limits of our own detector were
chosen on films of the folders `clips` and `photos`; what is measured here are others.

    python -m dtg_restore.bench.shots --data ../shared/data --json bench/results/shots.json
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.shots import place
from .degrade import Distortion, degrade
from .material import read
from .provenance import provenance

HEIGHT, WIDTH = 180, 320
CLIPS, PHOTOS = ("clips2", "generated"), "photos2"
# Thresholds of PySceneDetect: the default of each detector first.
PEERS = {"Content": (27, 45, 60), "Adaptive": (3, 2, 5), "Histogram": (0.05, 0.2, 0.3)}
Find = Callable[[Tensor], list[int]]


class Film(NamedTuple):
    kind: str
    frames: Tensor  # (T, 3, HEIGHT, WIDTH) in [0, 1]
    cuts: list[int]


class Cutter:
    """Makes films of clips; `rng` decides all of it."""

    def __init__(self, data: Path, rng: random.Random):
        paths = [path for folder in CLIPS for path in sorted((data / folder).glob("*.mp4"))]
        self.rng, self._clips = rng, {path.stem: fitted(read(path, 200)) for path in paths}
        self._photos = sorted((data / PHOTOS).glob("*.jpg"))
        self._noise = torch.Generator().manual_seed(rng.randrange(2**31))

    def films(self, count: int) -> Iterator[Film]:
        """`count` of every kind."""
        for _ in range(count):
            yield Film("hard", *self.sequence(5, 15, 60))
            yield Film("short shots", *self.sequence(8, 3, 12))
            yield self.dark(*self.sequence(4, 15, 50))
            yield self.noisy(*self.sequence(4, 15, 50))
            yield self.distorted(*self.sequence(4, 15, 40))
            yield self.punched_in(self.part(30, 60))
            yield self.flashes(self.part(40, 80))
            yield Film("fast pan", self.pan(), [])
            yield joined("pan cuts", [self.pan() for _ in range(3)])
            yield self.fade()
            yield self.dissolve()

    def part(self, least: int, most: int, other_than: str = "") -> tuple[str, Tensor]:
        """Frames of a clip whose name begins otherwise than `other_than`."""
        begin = other_than.split("_")[0]
        names = [name for name in self._clips if name.split("_")[0] != begin]
        name = self.rng.choice(names)
        clip = self._clips[name]
        length = min(self.rng.randint(least, most), len(clip))
        start = self.rng.randint(0, len(clip) - length)
        return name, clip[start : start + length].float() / 255

    def sequence(self, count: int, least: int, most: int) -> tuple[Tensor, list[int]]:
        name, parts = "", []
        for _ in range(count):
            name, part = self.part(least, most, name)
            parts.append(part)
        return joined("", parts)[1:]

    def dark(self, frames: Tensor, cuts: list[int]) -> Film:
        frames = frames * self.rng.uniform(0.05, 0.15)
        return Film("dark", frames + 0.006 * self.noise(frames), cuts)

    def noisy(self, frames: Tensor, cuts: list[int]) -> Film:
        return Film("noisy", frames + 0.06 * self.noise(frames), cuts)

    def noise(self, frames: Tensor) -> Tensor:
        return torch.randn(frames.shape, generator=self._noise)

    def distorted(self, frames: Tensor, cuts: list[int]) -> Film:
        strong = Distortion(warp=1.8, jitter=0.6, blur=1.2, noise=0.03, crf=36)
        rng = np.random.default_rng(self.rng.randrange(2**31))
        return Film("distorted", degrade(frames, strong, rng), cuts)

    def punched_in(self, part: tuple[str, Tensor]) -> Film:
        """The cut goes to a closer view of the same scene."""
        frames, half = part[1], len(part[1]) // 2
        zoom = self.rng.uniform(1.5, 2.2)
        height, width = int(HEIGHT / zoom), int(WIDTH / zoom)
        y, x = self.rng.randint(0, HEIGHT - height), self.rng.randint(0, WIDTH - width)
        close = frames[half:, :, y : y + height, x : x + width]
        return joined("same scene", [frames[:half], resized(close)])

    def flashes(self, part: tuple[str, Tensor]) -> Film:
        frames = part[1].clone()
        for middle in (len(frames) // 3, 2 * len(frames) // 3):
            flash = slice(middle, middle + self.rng.randint(1, 3))
            frames[flash] = frames[flash] * self.rng.uniform(1, 1.6) + self.rng.uniform(0.25, 0.8)
        return Film("flash", frames, [])

    def pan(self, samples: int = 4) -> Tensor:
        """The camera sweeps over a photo by up to a fifth of the frame's width, with its blur."""
        photo = read(self.rng.choice(self._photos), 1)
        scale = max(2 * HEIGHT / photo.shape[2], 3 * WIDTH / photo.shape[3])
        size = [round(side * scale) for side in photo.shape[2:]]
        wide = F.interpolate(photo, size, mode="bilinear", antialias=True)[0]
        room = wide.shape[2] - WIDTH
        speed, y = self.rng.uniform(0.03, 0.2) * WIDTH, self.rng.randint(0, wide.shape[1] - HEIGHT)
        count = min(24, int(room / speed))
        at = [[round(speed * (i + j / samples)) for j in range(samples)] for i in range(count)]
        views = [[wide[:, y : y + HEIGHT, x : x + WIDTH] for x in places] for places in at]
        return torch.stack([torch.stack(view).mean(0) for view in views])

    def fade(self) -> Film:
        name, before = self.part(25, 50)
        after = self.part(25, 50, name)[1].clone()
        length = self.rng.randint(6, 14)
        ramp = torch.linspace(1, 0, length).view(-1, 1, 1, 1)
        before = torch.cat((before[:-length], before[-length:] * ramp))
        after[:length] *= ramp.flip(0)
        black = torch.zeros(self.rng.randint(1, 6), 3, HEIGHT, WIDTH)
        return Film("fade", torch.cat((before, black, after)), [])

    def dissolve(self) -> Film:
        name, before = self.part(30, 50)
        after = self.part(30, 50, name)[1]
        length = self.rng.randint(8, 24)
        ramp = torch.linspace(0, 1, length + 2)[1:-1].view(-1, 1, 1, 1)
        mixed = torch.lerp(before[-length:], after[:length], ramp)
        return Film("dissolve", torch.cat((before[:-length], mixed, after[length:])), [])


def joined(kind: str, parts: list[Tensor]) -> Film:
    return Film(kind, torch.cat(parts), [*accumulate(map(len, parts))][:-1])


def resized(frames: Tensor) -> Tensor:
    size = (HEIGHT, WIDTH)
    return F.interpolate(frames, size, mode="bilinear", antialias=True).clamp(0, 1)


def fitted(frames: Tensor) -> Tensor:
    """The middle of the frames in the shape of a film, as bytes."""
    height, width = frames.shape[-2:]
    rows, columns = min(height, width * HEIGHT // WIDTH), min(width, height * WIDTH // HEIGHT)
    y, x = (height - rows) // 2, (width - columns) // 2
    return (resized(frames[..., y : y + rows, x : x + columns]) * 255).round().byte()


def own(frames: Tensor) -> list[int]:
    return sorted({shot for shot, _ in place(frames)} - {0})


def peer(name: str, threshold: float) -> Find:
    """A detector of PySceneDetect, fed frame by frame; no shot is too short for it."""
    import scenedetect
    from scenedetect import FrameTimecode

    word = "adaptive_threshold" if name == "Adaptive" else "threshold"

    def find(frames: Tensor) -> list[int]:
        kind = getattr(scenedetect.detectors, f"{name}Detector")
        detector, cuts = kind(**{word: threshold}, min_scene_len=1), []
        pictures = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).flip(-1)
        for number, picture in enumerate(pictures.contiguous().numpy()):
            cuts += detector.process_frame(FrameTimecode(number, 25.0), picture)
        cuts += detector.post_process(FrameTimecode(len(frames), 25.0))
        return sorted({cut.frame_num for cut in cuts})

    return find


class Score:
    """Counts of a detector over films."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    def add(self, film: Film, find: Find) -> None:
        found, cuts = set(find(film.frames)), set(film.cuts)
        counts = self.counts.setdefault(film.kind, [0, 0, 0])
        for i, some in enumerate((found & cuts, found - cuts, cuts - found)):
            counts[i] += len(some)

    def row(self, detector: str) -> dict[str, Any]:
        right, false, missed = (sum(column) for column in zip(*self.counts.values(), strict=True))
        names = ("found", "false", "missed")
        return {
            "detector": detector,
            "f1": round(2 * right / max(1, 2 * right + false + missed), 4),
            "precision": round(right / max(1, right + false), 4),
            "recall": round(right / max(1, right + missed), 4),
            "kinds": {k: dict(zip(names, v, strict=True)) for k, v in self.counts.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--films", type=int, default=12, help="of every kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)

    finders: dict[str, Find] = {"own": own}
    finders |= {
        f"{name} {threshold:g}": peer(name, threshold)
        for name, thresholds in PEERS.items()
        for threshold in thresholds
    }
    scores = {name: Score() for name in finders}
    for film in Cutter(options.data, random.Random(options.seed)).films(options.films):
        for name, find in finders.items():
            scores[name].add(film, find)
    rows = [score.row(name) for name, score in scores.items()]
    for row in rows:
        print(f"{row['detector']:15} F1 {row['f1']:.3f}  precision {row['precision']:.3f}  "
              f"recall {row['recall']:.3f}")  # fmt: skip
    if options.json:
        settings = {"films": options.films, "seed": options.seed, "size": [HEIGHT, WIDTH]}
        result = {"provenance": provenance(), "settings": settings, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
