"""The public interface on files: ranges, progress, cancelling, the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.errors import ConfigError, InputError, Interrupted
from dtg_restore.engine.media import open_reader
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.engine.types import Progress

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]


@pytest.fixture
def source(clip: Clip, pictures: Callable[..., Path]) -> Path:
    return pictures(clip(9, 12, 20))


def read(path: Path) -> Tensor:
    with open_reader(path) as reader:
        return torch.stack(list(reader))


def test_a_file_is_restored_like_its_frames(load: Load, source: Path, tmp_path: Path) -> None:
    restorer, target = load(), tmp_path / "out"
    report = restorer.restore_file(source, target)
    want = (restorer.restore(read(source)) * 255).round() / 255
    assert torch.equal(read(target), want)
    assert report["frames"] == {"first": 0, "count": 9}


@pytest.mark.parametrize(
    ("frames", "want"), [((0, 0), [0]), ((3, 5), [3, 4, 5]), ((7, 10**9), [7, 8]), ((8, 8), [8])]
)
def test_range_is_inclusive_and_clamped(
    load: Load, source: Path, tmp_path: Path, frames: tuple[int, int], want: list[int]
) -> None:
    restorer, target = load(steps=1), tmp_path / "out"
    report = restorer.restore_file(source, target, frames=frames)
    assert report["frames"] == {"first": want[0], "count": len(want)}
    assert sorted(p.name for p in target.iterdir()) == [f"{n:06d}.png" for n in want]
    whole = (restorer.restore(read(source)) * 255).round() / 255
    assert torch.equal(read(target), whole[want])


def test_range_of_super_resolution_alone(load: Load, source: Path, tmp_path: Path) -> None:
    """Nothing is refined, so nothing cuts the range but the range itself."""
    restorer = sr_only(load, tmp_path)
    report = restorer.restore_file(source, tmp_path / "out", frames=(2, 4))
    assert report["frames"] == {"first": 2, "count": 3}
    assert report["plan"] is None and report["evaluations"] == {} and report["guidance"] is None
    assert read(tmp_path / "out").shape == (3, 3, 24, 40)


def sr_only(load: Load, folder: Path) -> Restorer:
    config = {"kind": "mini", "scale": 2, "width": 8, "depth": 1}
    save_checkpoint(folder / "sr.safetensors", MiniSR(2, 8, 1).state_dict(), config, {})
    return load(backbone="none", sr=str(folder / "sr.safetensors"))


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ((5, 4), ConfigError),
        ((-1, 4), ConfigError),
        ((9, 12), InputError),
        ((900, 912), InputError),
    ],
)
def test_empty_ranges(
    load: Load, source: Path, tmp_path: Path, frames: tuple[int, int], error: type[Exception]
) -> None:
    with pytest.raises(error):
        load().restore_file(source, tmp_path / "out.mkv", frames=frames, codec="ffv1")
    assert not list(tmp_path.glob("*out*"))


def test_report(load: Load, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    report = load(alpha0=2.0, t_start=0.3).restore_file(source, target, codec="ffv1")
    assert json.loads(json.dumps(report)) is not None  # plain data
    assert report["settings"]["steps"] == 2 and report["settings"]["seed"] == 0
    assert report["guidance"]["t_start"] == 0.3 and report["guidance"]["alpha0"] == 2.0
    assert report["guidance"]["steps"] == 2  # None is resolved
    assert report["plan"]["chunk"] == {"length": 4, "overlap": 2}
    assert report["evaluations"] == {"cond": 8, "uncond": 8}  # 4 chunks of 2 steps
    assert report["output"]["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert report["input"] == {"path": str(source), "sha256": None}  # a folder has no hash
    seconds = report["seconds"]
    assert {"shots", "decode", "refine", "encode", "other", "total"} <= seconds.keys()
    assert sum(v for k, v in seconds.items() if k != "total") == pytest.approx(
        seconds["total"], abs=0.01
    )
    assert seconds["shots"] > 0  # the clip is read once for them
    assert report["peak_memory_bytes"]["host"] > 50e6
    assert report["versions"]["torch"] == torch.__version__
    assert report["machine"]["device"] == "cpu" and report["machine"]["processor"]


@pytest.mark.parametrize("frames", [None, (4, 6)])
def test_progress_only_goes_up(
    load: Load, source: Path, tmp_path: Path, frames: tuple[int, int] | None
) -> None:
    seen: list[Progress] = []
    load().restore_file(source, tmp_path / "out", frames=frames, on_progress=seen.append)
    count = 9 if frames is None else 3
    restored = [p for p in seen if p.stage == "restore"]
    assert [(p.done, p.total) for p in restored] == [(n, count) for n in range(1, count + 1)]
    steps = [p for p in seen if p.stage == "refine"]
    assert [(p.done, p.total) for p in steps] == [(1, 2), (2, 2)] * (len(steps) // 2)
    assert len(steps) == (8 if frames is None else 6)
    fractions = [p.fraction for p in seen]
    assert all(a <= b for a, b in zip(fractions, fractions[1:], strict=False))
    assert 0 < fractions[0] < 0.5 and fractions[-1] == pytest.approx(1)
    assert [p.frames for p in seen] == sorted(p.frames for p in seen)


@pytest.mark.parametrize("after", [0, 1, 5, 12])
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_cancel_leaves_no_file(
    load: Load, source: Path, tmp_path: Path, name: str, after: int
) -> None:
    calls = iter(range(1000))
    codec = "ffv1" if name.endswith("mkv") else "h264"
    with pytest.raises(Interrupted):
        load().restore_file(
            source, tmp_path / name, codec=codec, cancel=lambda: next(calls) >= after
        )
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_cancel_keeps_the_file_that_was_there(load: Load, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    target.write_bytes(b"precious")
    with pytest.raises(Interrupted):
        load().restore_file(source, target, codec="ffv1", overwrite=True, cancel=lambda: True)
    assert target.read_bytes() == b"precious"
    with pytest.raises(InputError, match="exists"):
        load().restore_file(source, target, codec="ffv1")
    assert target.read_bytes() == b"precious"


def test_an_error_of_the_caller_passes_through(load: Load, source: Path, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load().restore_file(source, tmp_path / "out.mkv", codec="ffv1", on_progress=fail)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_absent_source(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.mp4"):
        load().restore_file(tmp_path / "nowhere.mp4", tmp_path / "out.mkv")
    assert not list(tmp_path.iterdir())


def test_source_is_not_replaced(load: Load, source: Path) -> None:
    before = read(source)
    with pytest.raises(ConfigError, match="the same"):
        load().restore_file(source, source, overwrite=True)
    assert torch.equal(read(source), before)
