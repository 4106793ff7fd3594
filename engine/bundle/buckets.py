"""Which of the shapes that a bundle has engines for a run takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..backbones.base import BackboneFacts, Bucket
from ..config import RestoreConfig
from ..errors import ConfigError
from ..tiling import round_frames, round_up

Size = tuple[int, int]  # (width, height) in pixels


def choose(config: RestoreConfig, facts: BackboneFacts, whole: Size) -> Bucket | None:
    """The bucket that `config` asks for by tile and chunk, else the preferred one.

    `whole` is the size of the frame, rounded up to the backbone's multiple.  None where no bucket
    fits and `runtime` is "auto", so that the eager network may serve; else ConfigError.
    """
    frames = None
    if config.chunk is not None:
        frames = round_frames(config.chunk, facts.multiple_of[0], facts.frame_offset)
    for tile in _tiles(config, facts, whole):
        for bucket in facts.buckets:
            if frames in (None, bucket.frames) and tile in (None, (bucket.width, bucket.height)):
                return bucket
    if config.runtime == "auto":
        return None
    size = config.tile and "{}x{}".format(*config.tile)
    asked = {"tile": size, "chunk": config.chunk}
    settings = " and ".join(f"{n} is {value}" for n, value in asked.items() if value is not None)
    raise ConfigError(f"{settings}: the bundle has engines for {listed(facts.buckets)}")


def _tiles(config: RestoreConfig, facts: BackboneFacts, whole: Size) -> Iterator[Size | None]:
    """What may be meant by `config.tile`: it, or as much of it as there is of the frame."""
    if config.tile is None:
        yield None
        return
    multiple = facts.multiple_of[1]
    width, height = (
        round_up(side, multiple) or whole_side
        for side, whole_side in zip(config.tile, whole, strict=True)
    )
    yield width, height
    yield min(width, whole[0]), min(height, whole[1])


def listed(buckets: Iterable[Bucket]) -> str:
    """Buckets for a person: "64x48 pixels of 16 frames"."""
    return ", ".join(f"{b.width}x{b.height} pixels of {b.frames} frames" for b in buckets)


def batches(samples: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """The calls that `samples` samples are made in: which of them, and the batch they are filled
    up to.  `sizes` are the batches that there are, in rising order."""
    largest = sizes[-1]
    for start in range(0, samples, largest):
        stop = min(start + largest, samples)
        yield slice(start, stop), next(size for size in sizes if size >= stop - start)
