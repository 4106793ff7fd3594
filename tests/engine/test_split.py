"""Any division of the work gives the same frames, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.media import open_reader
from dtg_restore.engine.pipeline import restore_frames
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.report import Clock
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.shots import given_shots
from dtg_restore.engine.timeline import Timeline

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]


def worker(restorer: Restorer, frames: Tensor, start: int, stop: int | None) -> Tensor:
    """What a worker does that was given the range: it reads from its first chunk on."""
    plan = restorer.plan(*frames.shape[-2:])
    assert plan is not None and restorer.backbone is not None
    refiner = Refiner(restorer.backbone, restorer.codec, restorer.config, plan)
    timeline = Timeline(plan.grid, given_shots(restorer.config.shots))
    source = iter(frames[timeline.first_frame(start) :])
    restored = restore_frames(source, start, stop, refiner, timeline, restorer.sr, Clock())
    return torch.stack(list(restored))


def divisions(num_frames: int, count: int, seed: int) -> list[list[int]]:
    """Edges 0 < a < b < ... < num_frames of random divisions."""
    rng = random.Random(seed)
    inner = range(1, num_frames)
    return [
        [0, *sorted(rng.sample(inner, rng.randint(1, min(4, num_frames - 1)))), num_frames]
        for _ in range(count)
    ]


def test_random_divisions(load: Load, clip: Clip) -> None:
    restorer, frames = load(), clip(13, 24, 16)
    whole = restorer.restore(frames)
    assert (whole - frames).abs().mean() > 0.01  # something was done
    assert torch.equal(worker(restorer, frames, 0, None), whole)
    for edges in divisions(13, 8, seed=0):
        parts = [worker(restorer, frames, a, b) for a, b in zip(edges, edges[1:], strict=False)]
        assert torch.equal(torch.cat(parts), whole), edges


@pytest.mark.parametrize(
    ("chunk", "overlap", "num_frames"), [(4, 0, 9), (4, 2, 5), (4, 2, 6), (4, 2, 7), (8, 4, 13)]
)
def test_every_frame_alone(
    load: Load, clip: Clip, chunk: int, overlap: int, num_frames: int
) -> None:
    restorer, frames = load(chunk=chunk, overlap=overlap, steps=1), clip(num_frames, 8, 8)
    whole = restorer.restore(frames)
    for n in range(num_frames):
        assert torch.equal(worker(restorer, frames, n, n + 1)[0], whole[n]), n


def test_shots_split_as_well(load: Load, clip: Clip, tmp_path: Path) -> None:
    """Lists of shots say the same as the cuts that are found: a picture of noise is a shot."""
    frames = clip(8, 8, 8).repeat_interleave(torch.tensor([3, 5, 2, 7, 4, 1, 3, 5]), 0)
    path = tmp_path / "shots.txt"
    path.write_text("3\n8\n10\n17\n21\n22\n25\n")
    restorer = load(shots=str(path), steps=1)
    whole = restorer.restore(frames)
    assert torch.equal(load(shots="auto", steps=1).restore(frames), whole)
    assert not torch.equal(load(steps=1).restore(frames), whole)
    for edges in divisions(len(frames), 6, seed=1):
        parts = [worker(restorer, frames, a, b) for a, b in zip(edges, edges[1:], strict=False)]
        assert torch.equal(torch.cat(parts), whole), edges


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(3, 3), (17, 9), (1, 1), (16, 16)])
def test_short_and_odd_clips(
    load: Load, clip: Clip, num_frames: int, size: tuple[int, int]
) -> None:
    restorer, frames = load(steps=1), clip(num_frames, *size)
    whole = restorer.restore(frames)
    assert whole.shape == frames.shape and whole.isfinite().all()
    parts = [worker(restorer, frames, n, n + 1) for n in range(num_frames)]
    assert torch.equal(torch.cat(parts), whole)


def test_heun_and_the_other_guidance_modes_split_as_well(load: Load, clip: Clip) -> None:
    frames = clip(7, 8, 16)
    for settings in ({"solver": "heun"}, {"guidance": "cfg"}, {"guidance": "none"}):
        restorer = load(**settings)
        whole = restorer.restore(frames)
        parts = [worker(restorer, frames, *ends) for ends in ((0, 3), (3, 4), (4, 7))]
        assert torch.equal(torch.cat(parts), whole)


def test_a_run_can_be_repeated_and_the_seed_matters(load: Load, clip: Clip) -> None:
    frames = clip(5, 8, 8)
    first = load().restore(frames)
    assert torch.equal(load().restore(frames), first)
    assert not torch.allclose(load(seed=1).restore(frames), first, atol=1e-3)


@pytest.mark.parametrize(
    ("target", "codec"), [("frames", "h264"), ("clip.mkv", "ffv1")], ids=["png", "ffv1"]
)
def test_files_split_as_well(
    load: Load, clip: Clip, pictures: Callable[..., Path], tmp_path: Path, target: str, codec: str
) -> None:
    restorer = load(steps=1)
    source = pictures(clip(9, 12, 20))
    restorer.restore_file(source, tmp_path / f"whole-{target}", codec=codec)
    with open_reader(tmp_path / f"whole-{target}") as reader:
        whole = list(reader)
    assert len(whole) == 9
    parts = []
    for first, last in ((0, 2), (3, 3), (4, 100)):
        path = tmp_path / f"from-{first}-{target}"
        restorer.restore_file(source, path, codec=codec, frames=(first, last))
        with open_reader(path) as reader:
            parts += list(reader)
    assert torch.equal(torch.stack(parts), torch.stack(whole))
