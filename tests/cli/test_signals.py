"""Ctrl-C and SIGTERM in the middle of a run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from dtg_restore.cli.signals import Stop, Stopped
from dtg_restore.engine import run as engine_run

from .conftest import start, write_clip

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_process_ends_in_order(files, tmp_path: Path, number: signal.Signals) -> None:
    write_clip(tmp_path / "long.mkv", 200)
    options = [*files.quick, "--steps", "10", "--progress", "json", "--report", "r.json"]
    process = start("restore", "long.mkv", "o.mkv", *options, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("frames", 0) > 0:
            break
    assert any(path.name.startswith(".o.") for path in tmp_path.iterdir())  # half written
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (
        6,
        f"dtg-restore: interrupted by {number.name}: o.mkv was not written\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["long.mkv"]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("frames", [0, 4])
def test_pictures_that_are_finished_stay(
    cli,
    files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    frames: int,
) -> None:
    told = engine_run.Run._tell

    def tell(_: object, progress) -> None:
        if progress.frames == frames:
            signal.raise_signal(number)

    monkeypatch.setattr(engine_run.Run, "_tell", tell)
    result = cli("restore", files.clip, "out/", *files.quick)
    assert result.code == 6 and result.err.count("\n") == 1
    kept = max(0, frames - 1)
    says = f"{kept} frames finished, the same command goes on" if kept else "out/ was not written"
    assert says in result.err
    names = [p.name for p in tmp_path.glob("out/[!.]*")]
    assert sorted(names) == [f"{n:06}.png" for n in range(kept)]
    monkeypatch.setattr(engine_run.Run, "_tell", told)
    result = cli("restore", files.clip, "out/", *files.quick)
    assert result.code == 0 and ("going on" in result.err) == bool(kept)
    assert sorted(p.name for p in tmp_path.glob("out/*")) == [f"{n:06}.png" for n in range(11)]


def test_cancel_serves_where_the_exception_was_dropped(
    cli, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(stop: Stop, number: int, frame: object) -> None:
        stop._time = 0.0

    tell = engine_run.Run._tell

    def signal_and_tell(run, progress) -> None:
        signal.raise_signal(signal.SIGTERM)
        tell(run, progress)

    monkeypatch.setattr(Stop, "_handle", drop)
    monkeypatch.setattr(engine_run.Run, "_tell", signal_and_tell)
    assert cli("restore", files.clip, "o.mkv", *files.quick).code == 6
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_does_not_disturb_the_cleaning_up() -> None:
    with Stop() as stop:
        assert not stop.requested()
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()


def test_ignored_signals_stay_ignored_and_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with Stop():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
