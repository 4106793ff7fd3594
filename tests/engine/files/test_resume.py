"""A run that was broken off, however that came, gives the same bytes in the end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine import timeline
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.errors import EngineError, InputError, Interrupted, OutOfMemory
from dtg_restore.engine.files import journal
from dtg_restore.engine.files.job import Job, check_files
from dtg_restore.engine.files.journal import Journal
from dtg_restore.engine.media import open_reader
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sr.frames import FrameSR
from dtg_restore.engine.sr.mini import MiniSR
from dtg_restore.engine.types import Progress

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]
NUM_FRAMES = 13
TARGETS = ["o.mkv", "o.mp4", "pictures"]


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of two chunks' strides: 4 frames."""
    monkeypatch.setattr(timeline, "PART_FRAMES", 4)
    caplog.set_level(logging.WARNING, "dtg_restore")


@pytest.fixture
def source(clip: Clip, pictures: Callable[..., Path]) -> Path:
    return pictures(clip(NUM_FRAMES, 12, 20))


def content(path: Path) -> Any:
    """The bytes of all that was written; a hidden file beside it is none of it."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir()}
    return path.read_bytes()


def broken_off_after(frames: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.stage == "restore" and progress.frames > frames:
            raise Interrupted("here")

    return stop


def words(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("after", [1, 9, 12])
def test_the_same_bytes(load: Load, source: Path, tmp_path: Path, target: str, after: int) -> None:
    restorer, whole, got = load(steps=1), tmp_path / f"whole-{target}", tmp_path / target
    restorer.restore_file(source, whole)
    with pytest.raises(Interrupted):
        restorer.restore_file(source, got, on_progress=broken_off_after(after))
    finished = after if target == "pictures" else after // 4 * 4
    assert Job(str(source), str(got)).finished() == finished
    assert target == "pictures" or not got.exists()
    seen: list[Progress] = []
    report = restorer.restore_file(source, got, on_progress=seen.append)
    assert content(got) == content(whole)
    assert report["frames"] == {"first": 0, "count": NUM_FRAMES}
    assert report["resumed_frames"] == finished
    restored = [p.frames for p in seen if p.stage == "restore"]
    assert restored == list(range(finished + 1, NUM_FRAMES + 1))
    assert {p.num_frames for p in seen} == {NUM_FRAMES} and seen[-1].fraction == pytest.approx(1)
    assert not list(tmp_path.glob("**/*.resume"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_range_goes_on_as_well(load: Load, source: Path, tmp_path: Path, target: str) -> None:
    restorer, whole, got = load(steps=1), tmp_path / f"whole-{target}", tmp_path / target
    restorer.restore_file(source, whole, frames=(3, 11))
    with pytest.raises(Interrupted):
        restorer.restore_file(source, got, frames=(3, 11), on_progress=broken_off_after(6))
    # Parts end with the clip's own grid: behind frames 3 and 7.
    finished = {"pictures": 6}.get(target, 5)
    report = restorer.restore_file(source, got, frames=(3, 11))
    assert report["resumed_frames"] == finished and report["frames"] == {"first": 3, "count": 9}
    assert content(got) == content(whole)


@pytest.mark.parametrize("target", TARGETS)
def test_all_frames_were_finished(
    load: Load, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    restorer, whole, got = load(steps=1), tmp_path / f"whole-{target}", tmp_path / target
    restorer.restore_file(source, whole)
    for frames in (None, (0, NUM_FRAMES - 1)):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(Journal, "finish", lambda _: 1 / 0)
            restorer.restore_file(source, got, frames=frames, overwrite=True)
        with monkeypatch.context() as patch:
            patch.setattr(Refiner, "__call__", None)  # nothing is refined
            report = restorer.restore_file(source, got, frames=frames, overwrite=True)
        assert report["resumed_frames"] == report["frames"]["count"] == NUM_FRAMES
        assert content(got) == content(whole)


def test_settings_that_change_start_anew(
    load: Load, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for target in ("o.mkv", "pictures"):
        got, whole = tmp_path / target, tmp_path / f"whole-{target}"
        with pytest.raises(Interrupted):
            load(steps=1).restore_file(source, got, on_progress=broken_off_after(9))
        caplog.clear()
        report = load(steps=2).restore_file(source, got)
        assert words(caplog) == [f"{got}: steps was 1 and is 2, so the run starts anew"]
        load(steps=2).restore_file(source, whole)
        assert report["resumed_frames"] == 0 and content(got) == content(whole)


def test_an_input_that_changes_starts_anew(
    load: Load,
    source: Path,
    clip: Clip,
    pictures: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = pictures(clip(1, 12, 20, seed=1), "other") / "000000.png"
    with pytest.raises(Interrupted):
        load(steps=1).restore_file(source, tmp_path / "o.mkv", on_progress=broken_off_after(9))
    os.replace(other, source / "000005.png")
    caplog.clear()
    report = load(steps=1).restore_file(source, tmp_path / "o.mkv")
    assert "the input has changed, so the run starts anew" in caplog.text
    assert report["resumed_frames"] == 0


def test_a_moved_model_and_input_do_not(
    load: Load, weights: Path, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        load(steps=1).restore_file(source, tmp_path / "o.mkv", on_progress=broken_off_after(9))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    source = source.rename(tmp_path / "elsewhere")
    report = load(steps=1, backbone=str(moved)).restore_file(source, tmp_path / "o.mkv")
    assert report["resumed_frames"] == 8


def test_no_resume(load: Load, source: Path, tmp_path: Path) -> None:
    for target in ("o.mkv", "pictures"):
        with pytest.raises(Interrupted):
            load(steps=1).restore_file(source, tmp_path / target, on_progress=broken_off_after(9))
        report = load(steps=1).restore_file(source, tmp_path / target, resume=False)
        assert report["resumed_frames"] == 0 and report["frames"]["count"] == NUM_FRAMES


@pytest.mark.parametrize("target", ["o.mkv", "pictures"])
def test_what_was_there_before_stays(load: Load, source: Path, tmp_path: Path, target: str) -> None:
    """An unfinished run is no leave to replace what is not of it."""
    restorer, got = load(steps=1), tmp_path / target
    restorer.restore_file(source, got)
    before = content(got)
    with pytest.raises(InputError, match="exists already"):
        restorer.restore_file(source, got, on_progress=broken_off_after(9))
    assert content(got) == before and not list(tmp_path.glob("**/*.resume"))
    with pytest.raises(Interrupted):
        restorer.restore_file(source, got, overwrite=True, on_progress=broken_off_after(9))
    assert target == "pictures" or content(got) == before
    assert restorer.restore_file(source, got, overwrite=True)["resumed_frames"] > 0
    assert content(got) == before


def test_an_unfinished_run_owns_the_pictures_of_its_range_alone(
    load: Load, source: Path, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    restorer, short, got = load(steps=1), pictures(clip(4, 12, 20), "short"), tmp_path / "pictures"
    with pytest.raises(Interrupted):
        restorer.restore_file(short, got, on_progress=broken_off_after(2))
    assert (got / "000000.png").exists()
    alien = got / "000006.png"
    alien.write_bytes(b"of someone else")
    for _ in range(2):
        with pytest.raises(InputError, match="000006.png exists already"):
            restorer.restore_file(source, got)
        assert alien.read_bytes() == b"of someone else"


def test_a_run_that_starts_anew_replaces_the_pictures_of_those_before(
    load: Load, source: Path, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    restorer, short, got = load(steps=1), pictures(clip(4, 12, 20), "short"), tmp_path / "pictures"
    for each, after in ((source, 9), (short, 2)):
        with pytest.raises(Interrupted):
            restorer.restore_file(each, got, on_progress=broken_off_after(after))
    assert (got / "000007.png").exists()  # of the first one
    assert restorer.restore_file(source, got)["frames"]["count"] == NUM_FRAMES


class Killed(BaseException):
    pass


def dies(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize("changed", [{}, {"seed": 1}])
def test_killed_when_the_file_has_its_name(
    load: Load, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Any
) -> None:
    """The same command ends well, and with other settings the file is still in the way."""
    got = tmp_path / "o.mkv"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", dies)
        with pytest.raises(Killed):
            load(steps=1).restore_file(source, got)
    before = got.read_bytes()
    job = Job(str(source), str(got))
    if changed:
        with pytest.raises(InputError, match="exists already"):
            load(steps=1, **changed).restore_file(source, got, on_progress=dies)
    else:
        check_files(job, load(steps=1).config)
        assert load(steps=1).restore_file(source, got, on_progress=dies)["resumed_frames"] == 13
        assert not job.state.exists()
    assert got.read_bytes() == before


def test_a_file_that_came_in_between_stays(load: Load, source: Path, tmp_path: Path) -> None:
    got, restorer = tmp_path / "o.mkv", load(steps=1)
    with pytest.raises(InputError, match="exists already"):
        restorer.restore_file(source, got, on_progress=lambda _: got.write_bytes(b"another's"))
    assert got.read_bytes() == b"another's"
    assert restorer.restore_file(source, got, overwrite=True)["resumed_frames"] == NUM_FRAMES


def test_killed_while_the_state_is_removed(
    load: Load, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = tmp_path / "o.mkv"
    finish = Journal.finish
    with monkeypatch.context() as patch:

        def killed(state: Journal) -> None:
            finish(state)
            patch.setattr(journal, "_clear", dies)

        patch.setattr(Journal, "finish", killed)
        with pytest.raises(Killed):
            load(steps=1).restore_file(source, got)
    assert Job(str(source), str(got)).state.exists()
    with pytest.raises(InputError, match="exists already"):
        load(steps=1).restore_file(source, got)
    assert not Job(str(source), str(got)).state.exists()


@pytest.mark.parametrize("error", [OutOfMemory("full"), EngineError("broken"), InputError("gone")])
def test_errors_keep_what_is_finished(
    load: Load, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fail_at(monkeypatch, 6, error)
    with pytest.raises(type(error)):
        load(steps=1).restore_file(source, tmp_path / "o.mkv")
    monkeypatch.undo()
    monkeypatch.setattr(timeline, "PART_FRAMES", 4)
    assert load(steps=1).restore_file(source, tmp_path / "o.mkv")["resumed_frames"] == 4


def test_two_runs_on_one_output(load: Load, source: Path, tmp_path: Path) -> None:
    restorer, refused = load(steps=1), []

    def again(progress: Progress) -> None:
        with pytest.raises(InputError, match=rf"process {os.getpid()} on .* is writing it"):
            restorer.restore_file(source, tmp_path / "o.mkv")
        refused.append(progress)

    restorer.restore_file(source, tmp_path / "o.mkv", on_progress=again)
    assert refused and (tmp_path / "o.mkv").exists()


def test_two_ranges_of_one_sequence_at_once(load: Load, source: Path, tmp_path: Path) -> None:
    restorer, told = load(steps=1), []

    def other(progress: Progress) -> None:
        if not told:
            told.append(progress)
            restorer.restore_file(source, tmp_path / "out", frames=(7, 12))

    restorer.restore_file(source, tmp_path / "out", frames=(0, 6), on_progress=other)
    restorer.restore_file(source, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# -- memory ---------------------------------------------------------------------------------------


def fail_at(patch: pytest.MonkeyPatch, first: int, error: Exception, times: int = 1) -> None:
    """The chunk that begins with that frame fails so many times."""
    refine, left = Refiner.__call__, [error] * times

    def refine_or_fail(self: Refiner, frames: Tensor, chunk: Any, *more: Any) -> Tensor:
        if chunk.start == first and left:
            raise left.pop()
        return refine(self, frames, chunk, *more)

    patch.setattr(Refiner, "__call__", refine_or_fail)


@pytest.fixture
def wide(clip: Clip, pictures: Callable[..., Path]) -> Path:
    return pictures(clip(9, 12, 64), "wide")


def test_less_memory_from_the_start(
    load: Load, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames are those of half the tile, bit for bit."""
    half = load(tile=(32, 16)).restore_file(wide, tmp_path / "half.mkv")
    full = load(tile=(64, 16)).restore_file(wide, tmp_path / "full.mkv")
    assert half["less_memory"] is None and full["less_memory"] is None
    fail_at(monkeypatch, 0, MemoryError())
    with monkeypatch.context() as patch:
        patch.setattr(Refiner, "__call__", named(Refiner.__call__))
        report = load(tile=(64, 16)).restore_file(wide, tmp_path / "o.mkv")
    assert report["less_memory"] == {"stage": "refine", "tile": [32, 16], "first": 0}
    assert content(tmp_path / "o.mkv") == content(tmp_path / "half.mkv")
    assert content(tmp_path / "o.mkv") != content(tmp_path / "full.mkv")


def named(refine: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """As `Refiner.__call__` names what runs out of memory inside it."""

    def call(self: Refiner, *arguments: Any) -> Tensor:
        try:
            return refine(self, *arguments)
        except MemoryError:
            raise OutOfMemory("full", self._plan.smaller_tile, "refine") from None

    return call


def test_less_memory_in_the_middle_and_a_resumed_run(
    load: Load,
    wide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_at(monkeypatch, 4, OutOfMemory("full", (32, 16), "refine"))
    want = load(tile=(64, 16)).restore_file(wide, tmp_path / "want.mkv", codec="ffv1")
    assert want["less_memory"] == {"stage": "refine", "tile": [32, 16], "first": 4}
    assert words(caplog) == ["full: the run goes on from frame 4 with tiles of 32x16"]
    fail_at(monkeypatch, 4, OutOfMemory("full", (32, 16), "refine"))
    with pytest.raises(Interrupted):
        load(tile=(64, 16)).restore_file(
            wide, tmp_path / "o.mkv", codec="ffv1", on_progress=broken_off_after(8)
        )
    report = load(tile=(64, 16)).restore_file(wide, tmp_path / "o.mkv", codec="ffv1")
    assert report["resumed_frames"] == 8 and report["less_memory"] == want["less_memory"]
    assert content(tmp_path / "o.mkv") == content(tmp_path / "want.mkv")
    with open_reader(tmp_path / "o.mkv") as reader:
        got = list(reader)
    for tile, frames in (((64, 16), slice(0, 4)), ((32, 16), slice(6, 9))):
        path = tmp_path / f"{tile}.mkv"
        load(tile=tile).restore_file(wide, path, codec="ffv1")
        with open_reader(path) as reader:
            assert torch.equal(torch.stack(got[frames]), torch.stack(list(reader)[frames]))


@pytest.mark.parametrize(("first", "finished"), [(0, 0), (4, 4)])
def test_a_second_failure_ends_the_run(
    load: Load,
    wide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    finished: int,
) -> None:
    fail_at(monkeypatch, first, OutOfMemory("full", (32, 16), "refine"), times=3)
    restorer = load(tile=(64, 16))
    with pytest.raises(OutOfMemory):
        restorer.restore_file(wide, tmp_path / "o.mkv")
    assert Job(str(wide), str(tmp_path / "o.mkv")).finished() == finished
    if finished:  # one failure is left: the journal knows that the tile is halved already
        with pytest.raises(OutOfMemory):
            restorer.restore_file(wide, tmp_path / "o.mkv")


def test_super_resolution_with_less_memory(
    load: Load, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path = MiniSR(2, 8, 1), tmp_path / "sr.safetensors"
    config = {"kind": "mini", "scale": 2, "width": 8, "depth": 1}
    save_checkpoint(path, net.state_dict(), config, {})
    upscale, tiles = FrameSR._upscale_tile, []

    def upscale_or_fail(self: FrameSR, frame: Tensor, target: Tensor, tile: Any) -> None:
        tiles.append(tile)
        if tile.width > 32:
            raise MemoryError
        upscale(self, frame, target, tile)

    monkeypatch.setattr(FrameSR, "_upscale_tile", upscale_or_fail)
    report = load(sr=str(path)).restore_file(wide, tmp_path / "o.mkv")
    assert report["less_memory"] == {"stage": "upscale", "tile": None, "first": 0}
    assert [tile.width for tile in tiles] == [64] + [32] * (2 * 9)


# -- killed processes -----------------------------------------------------------------------------

KILL = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from dtg_restore.engine import timeline
from dtg_restore.engine.files import journal
from dtg_restore.engine.restorer import Restorer

source, weights, target = sys.argv[1:]
timeline.PART_FRAMES = 4
torch.set_num_threads(1)
restorer = Restorer.load(
    backbone=weights, sr="none", device="cpu", chunk=4, overlap=2, tile=(16, 16), steps=1
)

def restore(on_progress=None):
    restorer.restore_file(source, target, on_progress=on_progress)

moments, kills = random.Random(7), 0
while kills < 10:
    end, told = os.pipe()
    child = os.fork()
    if child == 0:
        restore(lambda progress: progress.stage == "shots" or os.write(told, b"."))
        os._exit(0)
    os.close(told)
    for _ in range(moments.randrange(24)):
        os.read(end, 1)
    os.close(end)
    time.sleep(moments.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        print("killed", sorted(p.name for p in Path(target).parent.rglob(".*/*")))
    else:  # it was faster: from the beginning
        shutil.rmtree(target) if os.path.isdir(target) else os.unlink(target)
restore()
"""


@pytest.mark.parametrize("target", ["o.mp4", "out"])
def test_killed_at_ten_moments(
    load: Load,
    weights: Path,
    clip: Clip,
    pictures: Callable[..., Path],
    tmp_path: Path,
    target: str,
) -> None:
    source = pictures(clip(40, 16, 16))
    (tmp_path / "killed").mkdir()
    got, whole = tmp_path / "killed" / target, tmp_path / target
    settings: dict[str, Any] = {"tile_overlap": None, "steps": 1}
    load(**settings).restore_file(source, whole)
    command = [sys.executable, "-c", KILL, *map(str, (source, weights, got))]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("killed") == 10 and "going on behind" in process.stderr
    assert content(got) == content(whole)
    assert [p.name for p in (tmp_path / "killed").iterdir()] == [target]
