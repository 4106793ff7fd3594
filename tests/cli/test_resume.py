"""Runs that are broken off say how to go on, and do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtg_restore.engine import run as engine_run
from dtg_restore.engine import timeline
from dtg_restore.engine.errors import EngineError

from .conftest import NUM_FRAMES

FFV1 = ["--codec", "ffv1"]


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 frames."""
    monkeypatch.setattr(timeline, "PART_FRAMES", 4)


def at_frame(patch: pytest.MonkeyPatch, frame: int, act) -> None:
    tell = engine_run.Run._tell

    def act_and_tell(run, progress) -> None:
        if progress.stage == "restore" and progress.frames == frame:
            act()
        tell(run, progress)

    patch.setattr(engine_run.Run, "_tell", act_and_tell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_the_same_command_goes_on(
    cli, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    command = ["restore", files.clip, "o.mkv", *files.quick, *FFV1]
    with monkeypatch.context() as patch:
        at_frame(patch, 7, lambda: signal.raise_signal(number))
        result = cli(*command)
    says = f"interrupted by {number.name}: 4 frames finished, the same command goes on from there"
    assert (result.code, result.err) == (6, f"dtg-restore: {says}\n")
    assert [path.name for path in tmp_path.iterdir()] == [".o.mkv.resume"]
    result = cli(*command)
    assert result.code == 0
    assert result.err == "dtg-restore: o.mkv: going on behind 4 finished frames\n"
    assert cli("restore", files.clip, "whole.mkv", *files.quick, *FFV1).code == 0
    assert (tmp_path / "o.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.mkv", "whole.mkv"]


def test_without_resume(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["restore", files.clip, "o.mkv", *files.quick, *FFV1, "--no-resume"]
    with monkeypatch.context() as patch:
        at_frame(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
        result = cli(*command)
    assert result.code == 6 and "the same command without --no-resume goes on" in result.err
    result = cli(*command)
    assert (result.code, result.err) == (0, "")


def test_a_changed_setting_is_said(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["restore", files.clip, "o.mkv", *files.quick, *FFV1]
    with monkeypatch.context() as patch:
        at_frame(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
        assert cli(*command).code == 6
    result = cli(*command, "--seed", "1")
    says = "dtg-restore: o.mkv: seed was 0 and is 1, so the run starts anew\n"
    assert (result.code, result.err) == (0, says)


def test_an_error_says_how_to_go_on(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise EngineError("the engine broke")

    with monkeypatch.context() as patch:
        at_frame(patch, 7, fail)
        result = cli("restore", files.clip, "o.mkv", *files.quick)
    says = "the engine broke; 4 frames finished, the same command goes on from there"
    assert (result.code, result.err) == (4, f"dtg-restore: error: {says}\n")


def test_what_came_in_the_way_is_replaced_by_name(
    cli, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["restore", files.clip, "o.mkv", *files.quick, *FFV1]
    target = tmp_path / "o.mkv"
    with monkeypatch.context() as patch:
        at_frame(patch, 7, lambda: target.write_bytes(b"of another"))
        result = cli(*command)
    left = f"{NUM_FRAMES} frames finished, the same command with --overwrite goes on from there"
    assert result.code == 3 and result.err.endswith(
        f"exists already, and overwrite is off; {left}\n"
    )
    assert target.read_bytes() == b"of another"
    assert cli(*command, "--overwrite").code == 0
    assert target.stat().st_size > 100


def test_a_second_run_on_one_output(
    cli, files, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dtg_restore.cli.main import main

    codes = []

    def again() -> None:
        codes.append(main(["restore", files.clip, "o.mkv", *files.quick, "--overwrite"]))

    with monkeypatch.context() as patch:
        at_frame(patch, 7, again)
        result = cli("restore", files.clip, "o.mkv", *files.quick)
    assert result.code == 0 and codes == [3]
    assert f"cannot write o.mkv: process {os.getpid()} on" in result.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk takes the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("target", ["o.mkv", "out"])
def test_a_full_disk(cli, files, tmp_path: Path, small_disk: Path, target: str) -> None:
    command = ["restore", files.clip, f"disk/{target}", *files.quick, *FFV1]
    assert cli("restore", files.clip, target, *files.quick, *FFV1).code == 0
    result = cli(*command)
    assert result.code == 3 and result.err.count("\n") == 1
    assert "No space left" in result.err and "the same command goes on" in result.err
    assert not (small_disk / "o.mkv").exists()
    result = cli(*command)  # still
    assert result.code == 3 and "Traceback" not in result.err
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    result = cli(*command)
    assert result.code == 0 and "going on behind" in result.err
    pairs = [(tmp_path / target, small_disk / target)]
    if target == "out":
        names = [f"{n:06}.png" for n in range(NUM_FRAMES)]
        pairs = [(tmp_path / target / n, small_disk / target / n) for n in names]
    assert all(a.read_bytes() == b.read_bytes() for a, b in pairs)
    assert not list(small_disk.rglob(".*"))
