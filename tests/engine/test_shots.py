"""Cuts are found where they are, motion and light are none, and no output frame mixes two shots."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.engine.errors import InputError, Interrupted
from dtg_restore.engine.media import open_reader, probe
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.shots import (
    REACH,
    find_shots,
    place,
    read_shots,
    shots_as_text,
)
from dtg_restore.engine.types import Chunk, Progress

LENGTHS = (6, 9, 3, 8)
CUTS = [0, 6, 15, 18]
HEIGHT, WIDTH = 36, 64


def scene(seed: int) -> Tensor:
    """A smooth random picture (3, 3 * HEIGHT, 3 * WIDTH)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 15, 27, generator=generator)
    return F.interpolate(coarse, (3 * HEIGHT, 3 * WIDTH), mode="bicubic").clamp(0, 1)[0]


def shot(length: int, seed: int, speed: int = 1) -> Tensor:
    """A scene that the camera moves over, `speed` pixels a frame."""
    picture = scene(seed)
    return torch.stack(
        [picture[:, 4 : 4 + HEIGHT, i * speed : i * speed + WIDTH] for i in range(length)]
    )


def film(speed: int = 1) -> Tensor:
    return torch.cat([shot(length, seed, speed) for seed, length in enumerate(LENGTHS)])


def found(frames: Tensor) -> list[int]:
    return sorted({first for first, _ in place(frames)})


@pytest.mark.parametrize(
    ("gain", "noise"), [(1.0, 0.0), (0.06, 0.004), (1.0, 0.1)], ids=["plain", "dark", "noisy"]
)
def test_three_cuts_are_found(gain: float, noise: float) -> None:
    torch.manual_seed(0)
    frames = film() * gain
    assert found(frames + noise * torch.randn(frames.shape)) == CUTS


def test_fast_motion_is_no_cut() -> None:
    assert found(film(speed=8)) == CUTS


def test_flashes_are_no_cuts() -> None:
    frames = shot(24, 0)
    frames[5] = frames[5] * 0.4 + 0.6
    frames[12:15] = 1.0
    assert found(frames) == [0]


def test_fades_are_no_cuts() -> None:
    out = torch.linspace(1, 0, 8).view(-1, 1, 1, 1)
    frames = torch.cat((shot(8, 0), shot(8, 1) * out, shot(8, 2) * out.flip(0), shot(8, 2)))
    assert found(frames[8:24]) == [0]


def test_a_cut_to_black_is_one() -> None:
    assert found(torch.cat((shot(8, 0), torch.zeros(5, 3, HEIGHT, WIDTH)))) == [0, 8]


def test_a_shot_of_one_frame() -> None:
    assert found(torch.cat((shot(6, 0), shot(1, 1), shot(6, 2)))) == [0, 6, 7]


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (17, 500)])
def test_frames_of_any_size_and_kind(size: tuple[int, int]) -> None:
    frames = torch.zeros(5, 3, *size)
    assert found(frames.half()) == [0]
    assert found(torch.full_like(frames, math.nan)) == [0]
    assert found(frames[:0]) == []


def test_what_is_found_does_not_depend_on_where_reading_ends() -> None:
    frames = film()
    for count in range(1, len(frames)):
        decided = [cut for cut in found(frames[:count]) if cut <= count - REACH]
        assert decided == [cut for cut in CUTS if cut <= count - REACH]


def test_frames_are_given_on_as_soon_as_it_is_known() -> None:
    pulled = itertools.count()
    placed = place(frame for frame, _ in zip(film(), pulled, strict=False))
    for number, (first, _) in enumerate(placed):
        ahead = next(pulled) - number - 1 - number  # this look counts as well
        assert first in CUTS
        assert 0 <= ahead <= REACH


# -- files ---------------------------------------------------------------------------------------


def test_shots_of_a_clip(pictures: Callable[..., Path]) -> None:
    source = pictures(film())
    info, seen = probe(source), []
    assert find_shots(source, info, on_progress=seen.append) == tuple(CUTS)
    assert seen[-1] == Progress("shots", sum(LENGTHS), sum(LENGTHS))
    assert find_shots(source, info, 18) == (0, 6, 15)
    assert find_shots(source, info, 19) == tuple(CUTS)
    with pytest.raises(Interrupted):
        find_shots(source, info, cancel=lambda: True)


def test_a_list_of_shots(tmp_path: Path) -> None:
    path = tmp_path / "shots.txt"
    path.write_text(shots_as_text(CUTS))
    assert read_shots(path) == tuple(CUTS)
    path.write_text("# none\n\n  6 # the second\n15\n")
    assert read_shots(path) == (0, 6, 15)
    path.write_bytes(b"\xef\xbb\xbf6\r\n15\r\n")  # as Windows saves it
    assert read_shots(path) == (0, 6, 15)


@pytest.mark.parametrize("text", ["5\n5\n", "7\n6\n", "-1\n", "x\n", "1.5\n", "²\n", "0\n3\n0\n"])
def test_a_damaged_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shots.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"shots.txt, line \d: "):
        read_shots(path)


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the shots in .*No such file"):
        read_shots(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text"):
        read_shots(tmp_path / "binary")


# -- a run ---------------------------------------------------------------------------------------


@pytest.fixture
def mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refinement that gives every frame of a chunk the mean of them all."""

    def refine(self: Refiner, frames: Tensor, chunk: Chunk, on_step: Any = None) -> Tensor:
        return frames.mean(0, keepdim=True).expand_as(frames).clone()

    monkeypatch.setattr(Refiner, "__call__", refine)


def shots_in(frame: Tensor) -> set[int]:
    """The channels that hold something: every shot of `coloured` has one of its own."""
    return {channel for channel in range(3) if frame[channel].mean() > 1e-3}


def coloured(pictures: Callable[..., Path]) -> Path:
    """Three hard cuts between shots of red, green, blue and red alone."""
    frames = film()
    edges = [*itertools.accumulate((0, *LENGTHS))]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        others = [channel for channel in range(3) if channel != number % 3]
        frames[start:stop, others] = 0
    return pictures(frames)


def read(path: Path) -> list[Tensor]:
    with open_reader(path) as reader:
        return list(reader)


@pytest.mark.parametrize("bounds", [None, (0, 9), (4, 16), (17, 25)])
def test_no_output_frame_mixes_two_shots(
    mixing: None,
    load: Callable[..., Restorer],
    pictures: Callable[..., Path],
    tmp_path: Path,
    bounds: tuple[int, int] | None,
) -> None:
    source = coloured(pictures)
    restorer = load(shots="auto", tile=(0, 0))
    report = restorer.restore_file(source, tmp_path / "out", frames=bounds)
    assert report["shots"] == [cut for cut in CUTS if bounds is None or cut < bounds[1] + 5]
    first = bounds[0] if bounds else 0
    owner = [n % 3 for n, length in enumerate(LENGTHS) for _ in range(length)]
    for number, frame in enumerate(read(tmp_path / "out"), first):
        assert shots_in(frame) == {owner[number]}, number


def test_a_grid_that_ignores_cuts_mixes_them(
    mixing: None, load: Callable[..., Restorer], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """Or the test above would show nothing."""
    load(tile=(0, 0)).restore_file(coloured(pictures), tmp_path / "out")
    assert any(len(shots_in(frame)) > 1 for frame in read(tmp_path / "out"))


def test_streams_and_clips_in_memory_find_their_cuts(
    mixing: None, load: Callable[..., Restorer], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    source = coloured(pictures)
    restorer = load(shots="auto", tile=(0, 0))
    restorer.restore_file(source, tmp_path / "out")
    frames = torch.stack(read(source))
    want = torch.stack(read(tmp_path / "out"))
    assert torch.equal((restorer.restore(frames) * 255).round() / 255, want)


def test_a_shot_is_restored_as_if_it_were_alone(load: Callable[..., Restorer]) -> None:
    """Nothing of the next one is in it."""
    frames = torch.cat((shot(6, 0), shot(5, 1)))
    whole = load(shots="auto").restore(frames)
    assert torch.equal(load().restore(frames[:6]), whole[:6])
    assert not torch.equal(load().restore(frames)[:6], whole[:6])


def test_full_chunks_are_filled_from_their_own_shot(load: Callable[..., Restorer]) -> None:
    a, b, c = shot(6, 0), shot(5, 1), shot(5, 2)
    restorer = load(shots="auto", full_chunks=True)
    one, other = restorer.restore(torch.cat((a, b))), restorer.restore(torch.cat((a, c)))
    assert torch.equal(one[:6], other[:6])
    assert not torch.equal(one[6:], other[6:])
