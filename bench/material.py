"""Clips that no embedded model has seen in training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.media import open_reader

# Sources of one scene share a prefix; a held-out scene is held out with all its sources.
HELD_OUT = ("pour_coffee", "cat_on_grass", "sign_walk", "sign_school", "cactus_flower", "road")
CLIP_FOLDERS, PHOTO_FOLDERS = ("clips", "clips2"), ("photos", "photos2")
VID4 = ("calendar", "city", "walk")


def read(path: Path, count: int, start: int = 0) -> Tensor:
    """`count` frames (T, 3, H, W) from `start` on, fewer where the clip is shorter."""
    with open_reader(path, start, start + count) as reader:
        return torch.stack(list(islice(reader, count)))


def held_out(data: Path, frames: int, size: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
    """(name, clean frames): the central `size` (height, width) of the held-out scenes, and of Vid4.

    The scenes are halved first, as 480 lines of compressed video are soft.  Vid4 has eight frames a
    clip; it is used for evaluation only.
    """
    for folder in CLIP_FOLDERS:
        for path in sorted((data / folder).glob("*.mp4")):
            if path.name.startswith(HELD_OUT):
                yield path.stem, _centre(_halve(read(path, frames, start=8)), size)
    for name in VID4:
        gt = data / "vsr" / f"vid4_{name}" / "gt"
        if gt.is_dir():
            yield f"vid4_{name}", _centre(read(gt, min(frames, 8)), size)


def generated(data: Path, frames: int, size: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
    """The same of clips that were generated, as they are: they have no truth."""
    for path in sorted((data / "generated").glob("*.mp4")):
        clip = read(path, frames)
        if len(clip) == frames and min(clip.shape[-2:]) >= max(size):
            yield path.stem, _centre(clip, size)


def _halve(frames: Tensor) -> Tensor:
    size = [side // 2 for side in frames.shape[-2:]]
    return F.interpolate(frames, size, mode="bicubic", antialias=True).clamp(0, 1)


def _centre(frames: Tensor, size: tuple[int, int]) -> Tensor:
    y, x = ((have - want) // 2 for have, want in zip(frames.shape[-2:], size, strict=True))
    return frames[..., max(y, 0) : max(y, 0) + size[0], max(x, 0) : max(x, 0) + size[1]]
