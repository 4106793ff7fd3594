"""The three forms of progress, and their figures."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from dtg_restore.cli import progress as cli_progress
from dtg_restore.cli.progress import Bar, Plain, Status, make_reporter
from dtg_restore.engine.types import Progress

from .conftest import NUM_FRAMES


def test_plain_is_what_a_pipe_gets(cli, files) -> None:
    result = cli("restore", files.clip, "o.mkv", *files.quick, "--progress", "auto")
    assert result.code == 0
    assert "\r" not in result.err and "\x1b" not in result.err
    lines = result.err.splitlines()
    assert lines[0] == "loading" and f"{NUM_FRAMES}/{NUM_FRAMES} frames" in lines[-1]
    assert re.fullmatch(r"\[0:00\] cutting +\?%  looking for cuts in frame 1 of 11", lines[1])
    form = r"\[\d+:\d\d\] (refining|writing ) +\d+%  \d+/11 frames  \S+ frames/s  ETA \d+:\d\d"
    assert all(re.fullmatch(form, line) for line in lines[2:])
    first, second = result.out.splitlines()
    assert first.startswith("o.mkv: 11 frames of 64x48 in 0:") and "evaluations" in first
    assert "refine" in second and "peak memory" in second


def test_summary_tells_what_elision_saved(cli, files) -> None:
    options = ["--progress", "plain", "--elide-tol", "1", "--alpha0", "1.5"]
    result = cli("restore", files.clip, "o.mkv", *files.quick, *options)
    assert "15 evaluations (5 saved)" in result.out  # of 5 chunks of 2 steps


def test_json_lines(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress.JsonLines, "interval", 0.0)
    result = cli("restore", files.clip, "o.mkv", *files.quick, "--progress", "json")
    assert (result.code, result.err) == (0, "")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert events[0] == {"event": "load"}
    assert events[-1]["event"] == "done" and events[-1]["report"]["frames"]["count"] == NUM_FRAMES
    steps = [e for e in events if e.get("stage") == "refine"]
    assert [(e["done"], e["total"]) for e in steps] == [(1, 2), (2, 2)] * 5
    looks = [e for e in events if e.get("stage") == "shots"]
    assert looks == events[1:12] and [e["done"] for e in looks] == list(range(1, 12))
    fractions = [e["fraction"] for e in events[12:-1]]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert len({e["fraction"] for e in steps}) == len(steps)  # steps move the bar
    last = events[-2]
    assert (last["frames"], last["num_frames"], last["eta_seconds"]) == (11, 11, 0.0)


def test_range_is_the_whole_of_the_progress(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress.JsonLines, "interval", 0.0)
    options = ["--progress", "json", "--frames", "5-7"]
    result = cli("restore", files.clip, "o.mkv", *files.quick, *options)
    last = json.loads(result.out.splitlines()[-2])
    assert (last["frames"], last["num_frames"]) == (3, 3)
    assert last["fraction"] == pytest.approx(1.0)


def test_bar_on_a_terminal(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    arguments = [a for a in files.quick if a != "--alpha-clip"]
    options = ["--progress", "auto", "--alpha0", "9"]
    result = cli("restore", files.clip, "o.mkv", *arguments, *options)
    assert result.code == 0 and "o.mkv: 11 frames" in result.out
    assert "━" in terminal.getvalue() and "frames/s" in terminal.getvalue()
    assert "alpha exceeds" in terminal.getvalue()


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_reporter("auto"), Plain)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_reporter("auto"), Bar)


def test_figures() -> None:
    half = Status(Progress("refine", 1, 4, 10, 100, 0.5), elapsed=20.0)
    assert (half.frames_per_second, half.eta) == (2.5, 20.0)
    assert half.text() == "10/100 frames  2.5 frames/s  ETA 0:20"
    unknown = Status(Progress("restore", 10, None, 10), elapsed=20.0)
    assert unknown.text() == "10/? frames  0.5 frames/s  ETA -"
    assert Status(Progress("refine", 1, 4, 0, None), 0.0).text() == "0/? frames  - frames/s  ETA -"


def test_plain_is_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Plain()
    reporter.begin()
    for n in range(1000):
        reporter(Progress("restore", n, 1000, n, 1000, n / 1000))
    assert capsys.readouterr().err.count("\n") == 1


def test_reader_of_the_progress_may_leave(
    cli, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Broken())
    monkeypatch.setattr("sys.stderr", Broken())
    for mode in ("plain", "json"):
        arguments = ("restore", files.clip, f"{mode}.mkv", *files.quick, "--progress", mode)
        assert cli(*arguments).code == 0
        assert (tmp_path / f"{mode}.mkv").exists()
