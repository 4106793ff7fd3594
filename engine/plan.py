"""The plan of a run: chunks, tiles, evaluations, memory and time, from facts alone.

No weights are loaded; only the time estimate measures something, the machine's matrix product.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from .backbones import facts_of
from .backbones.attention import attention_for
from .backbones.base import BackboneFacts, Bucket
from .bundle.buckets import choose
from .bundle.facts import to_json
from .bundle.settings import settled
from .config import RestoreConfig
from .devices import resolve_device, resolve_dtype
from .errors import ConfigError
from .memory import Memory, Work, memory_of, remedy
from .schedule import nodes
from .sr import SRFacts
from .sr.frames import TILE
from .tiling import ChunkGrid, round_frames, round_up, tiles
from .timeline import Timeline
from .types import Chunk, Tile

# Seen in runs of `mini` on a CPU: the share of the matrix peak that a whole run reaches.
EFFICIENCY = 0.5
UPSCALE_FLOATS = 200  # that the super-resolution net holds at once for a pixel of its tile
UPSCALED_FRAMES = 4  # the result and the writer's conversions of it


@dataclass(frozen=True)
class Plan:
    """How a clip of `frame_size` is cut, and what that costs.

    Sizes are (height, width) in pixels; `padded_size` is what the backbone sees, of frames that
    number `multiple * k + offset`, the `frame_rule`.  `attention` is the implementation that the
    network's largest attention has, None where diffusers decides or it is compiled.  `bucket` is
    the shape of the engines that are used, None where there are none or none of that shape.
    """

    frame_size: tuple[int, int]
    padded_size: tuple[int, int]
    grid: ChunkGrid
    frame_rule: tuple[int, int]
    tiles: list[Tile]
    tile_batch: int
    evaluations: int
    flops_per_chunk: float
    memory: Memory
    attention: str | None
    bucket: Bucket | None = None

    def padded_frames(self, count: int) -> int:
        """What the backbone sees of a chunk of `count` frames: the next count that it takes."""
        return round_frames(count, *self.frame_rule)

    def flops(self, chunk: Chunk) -> float:
        """Of refining it: a short one costs about its share of a full one."""
        frames = self.padded_frames(chunk.stop - chunk.start)
        return self.flops_per_chunk * frames / self.grid.length

    @property
    def smaller_tile(self) -> tuple[int, int] | None:
        """(width, height) of a tile with half the side; None where it is tiny already, or engines
        are of its size."""
        width, height = self.tile_size
        if max(width, height) <= 32 or self.bucket is not None:
            return None
        return max(16, width // 32 * 16), max(16, height // 32 * 16)

    @property
    def tile_size(self) -> tuple[int, int]:
        """(width, height) of a tile."""
        return self.tiles[0].width, self.tiles[0].height


def make_plan(config: RestoreConfig, height: int, width: int) -> Plan:
    """Cut frames of height x width as `config` says, the backbone's defaults filling what it leaves
    open.  ConfigError where chunk, overlap and tile contradict each other, or what the backbone is
    compiled for."""
    facts = facts_of(config.backbone)
    config = settled(config)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    multiple = facts.multiple_of[1]
    padded = (round_up(height, multiple), round_up(width, multiple))
    bucket = choose(config, facts, padded[::-1]) if facts.buckets else None
    if bucket is not None:
        config, facts = _in(bucket, config, facts)
    if facts.buckets:  # every tile has the size that it is compiled for
        padded = _at_least(padded, [config.tile if bucket else None, config.vae_tile], multiple)
    grid = chunk_grid(config, facts)
    cut = _cut(config, facts, padded)
    evaluations = count_evaluations(config, facts)
    batch = facts.tile_batch if config.tile_batch is None else config.tile_batch
    is_full = config.full_chunks or bucket is not None
    per_tile = facts.flops(grid.length, cut[0].height, cut[0].width)
    work = _work(facts, config, grid.length, padded, cut, batch)
    return Plan(
        frame_size=(height, width),
        padded_size=padded,
        grid=grid,
        frame_rule=(grid.length, 0) if is_full else (facts.multiple_of[0], facts.frame_offset),
        tiles=cut,
        tile_batch=batch,
        evaluations=evaluations,
        flops_per_chunk=per_tile * len(cut) * evaluations,
        memory=memory_of(facts, config, work, device, dtype),
        attention=attention_for(config.attention, facts.head_dim, device, dtype),
        bucket=bucket,
    )


def _in(
    bucket: Bucket, config: RestoreConfig, facts: BackboneFacts
) -> tuple[RestoreConfig, BackboneFacts]:
    """Settings and defaults with which chunks and tiles have the shape of the bucket, and calls of
    both branches its largest batch."""
    tile = (bucket.width, bucket.height)
    multiple = facts.multiple_of[1]
    overlap = min(facts.tile_overlap, min(tile) // 2 // multiple * multiple)
    batch = max(1, bucket.batches[-1] // 2)
    return replace(config, chunk=bucket.frames, tile=tile), replace(
        facts, tile_overlap=overlap, tile_batch=batch
    )


def _at_least(
    padded: tuple[int, int], tiles: list[tuple[int, int] | None], multiple: int
) -> tuple[int, int]:
    """A frame of (height, width) made as large as tiles of (width, height)."""
    height, width = padded
    for tile in filter(None, tiles):
        width, height = max(width, tile[0]), max(height, tile[1])
    return round_up(height, multiple), round_up(width, multiple)


def _cut(config: RestoreConfig, facts: BackboneFacts, padded: tuple[int, int]) -> list[Tile]:
    """The tiles of a frame of `padded` (height, width); ConfigError where they overlap wholly."""
    multiple = facts.multiple_of[1]
    width, height = facts.tile if config.tile is None else config.tile
    tile = (round_up(width, multiple), round_up(height, multiple))
    overlap = facts.tile_overlap if config.tile_overlap is None else config.tile_overlap
    for side, size in zip(tile, padded[::-1], strict=True):
        if side and side < size and overlap >= side:
            raise ConfigError(
                f"tile_overlap is {overlap}: it must be below the tile's side ({side})"
            )
    return tiles(*padded, tile, overlap, multiple)


def chunk_grid(config: RestoreConfig, facts: BackboneFacts) -> ChunkGrid:
    """Chunk and overlap are rounded up to the backbone's frame rule; an overlap that was not asked
    for fits the chunk.  As both obey it, the latent frames of neighbours lie on one grid."""
    multiple, offset = facts.multiple_of[0], facts.frame_offset
    length = round_frames(facts.chunk if config.chunk is None else config.chunk, multiple, offset)
    if config.overlap is None:
        longest = (length // 2 - offset) // multiple * multiple + offset
        return ChunkGrid(length, max(0, min(facts.overlap, longest)))
    overlap = round_frames(config.overlap, multiple, offset)
    if 2 * overlap > length:
        raise ConfigError(
            f"overlap is {config.overlap}: rounded up to {_rule(multiple, offset)} it must be at "
            f"most half of the chunk ({length})"
        )
    return ChunkGrid(length, overlap)


def _rule(multiple: int, offset: int) -> str:
    return f"a multiple of {multiple}" + (f" and {offset}" if offset else "")


def count_evaluations(config: RestoreConfig, facts: BackboneFacts) -> int:
    """Passes of the backbone over a chunk; a branch of weight zero is not evaluated.

    With one of `config.TOLERANCES` above 0 it is the most that there can be: the rest depends on
    the clip.
    """
    dtg = config.dtg(facts.defaults)
    table = nodes(dtg)
    visited = table[:-1] + (table[1:-1] if dtg.solver == "heun" else [])
    return sum(1 + (node.w_uncond != 0) for node in visited)


def _work(
    facts: BackboneFacts,
    config: RestoreConfig,
    frames: int,
    padded: tuple[int, int],
    cut: list[Tile],
    batch: int,
) -> Work:
    height, width = padded
    columns, rows = config.vae_tile or (0, 0)
    return Work(
        frames=frames,
        height=height,
        width=width,
        tokens=2 * min(batch, len(cut)) * facts.tokens(frames, cut[0].height, cut[0].width),
        codec_pixels=min(rows or height, height) * min(columns or width, width),
    )


def what_fits(config: RestoreConfig, plan: Plan, budget: int) -> dict[str, Any] | None:
    """Settings with which stage one fits into `budget` bytes: {} for those of `config`, None where
    smaller tiles or chunks are the only way."""
    facts, config = facts_of(config.backbone), settled(config)
    device = resolve_device(config.device)
    work = _work(facts, config, plan.grid.length, plan.padded_size, plan.tiles, plan.tile_batch)
    return remedy(facts, config, work, device, resolve_dtype(config.dtype, device), budget)


def estimate(
    plan: Plan | None,
    sr: SRFacts | None,
    size: tuple[int, int],
    frames: tuple[int, int] | None,
    num_frames: int | None,
    flops_per_second: float,
    shots: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """What a run costs, roughly; None where that depends on an unknown length.

    Parameters
    ----------
    plan, sr : the stages of the run.
    size : (height, width) of an input frame.
    frames : start and stop of the range that is restored; None = length unknown.
    num_frames : length of the clip, None = the range's stop.
    flops_per_second : of the machine, see `matmul_flops`.
    shots : the first frame of every shot of the clip.
    """
    memory = (plan.memory.device if plan else 0) + upscale_memory(sr, *size)
    costs: dict[str, Any] = {"memory_bytes": memory, "machine_flops_per_second": flops_per_second}
    if frames is None:
        return costs | dict.fromkeys(
            ("frames", "shots", "chunks", "evaluations", "refine_flops", "upscale_flops", "seconds")
        )
    start, stop = frames
    timeline = Timeline(plan.grid if plan else None, shots)
    chunks = timeline.touching(start, stop, num_frames or stop)
    refine = sum(map(plan.flops, chunks)) if plan else 0.0
    upscale = 2.0 * sr.macs_per_pixel * size[0] * size[1] * (stop - start) if sr else 0.0
    return costs | {
        "frames": stop - start,
        "shots": len({timeline.shot_of(chunk.start) for chunk in chunks}),
        "chunks": len(chunks),
        "evaluations": len(chunks) * plan.evaluations if plan else 0,
        "refine_flops": refine,
        "upscale_flops": upscale,
        "seconds": (refine + upscale) / (EFFICIENCY * flops_per_second),
    }


def upscale_memory(sr: SRFacts | None, height: int, width: int, device_type: str = "cpu") -> int:
    """Bytes that the second stage and the writer hold: the maps of a tile, the enlarged frame."""
    if sr is None:
        return 0
    side = TILE[device_type] + 2 * sr.halo
    features = min(height, side) * min(width, side) * UPSCALE_FLOATS
    enlarged = UPSCALED_FRAMES * 3 * height * width * sr.scale**2
    return 4 * (sr.parameters + features + enlarged)


def matmul_flops(device: torch.device | str = "cpu", seconds: float = 0.2) -> float:
    """Floating-point operations a second of matrix products on `device`, in its usual dtype."""
    device = torch.device(device)
    size = 768 if device.type == "cpu" else 4096
    a = torch.randn(size, size, device=device, dtype=resolve_dtype("auto", device))
    (a @ a).sum().item()  # warm, and waits for the device
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        (a @ a)[0, 0].item()
        count += 1
    return 2.0 * size**3 * count / elapsed


def describe(plan: Plan) -> dict[str, Any]:
    """Plain data of a plan, for reports."""
    return {
        "frame_size": list(plan.frame_size),
        "padded_size": list(plan.padded_size),
        "chunk": asdict(plan.grid),
        "tile": list(plan.tile_size),
        "tiles": len(plan.tiles),
        "tile_batch": plan.tile_batch,
        "evaluations": plan.evaluations,
        "flops_per_chunk": plan.flops_per_chunk,
        "memory": plan.memory.describe(),
        "attention": plan.attention,
        "bucket": plan.bucket and to_json(plan.bucket),
    }
