"""`dtg-restore plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtg_restore.engine import checkpoint

from .conftest import HEIGHT, NUM_FRAMES, WIDTH

SMALL = ["--chunk", "4", "--overlap", "2", "--tile", "24x24", "--tile-overlap", "8"]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers may be read, tensors may not."""
    real = checkpoint.safe_open

    class HeaderOnly:
        def __init__(self, *arguments: object, **options: object):
            self.file = real(*arguments, **options)

        def __enter__(self) -> HeaderOnly:
            self.metadata = self.file.__enter__().metadata
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

    monkeypatch.setattr(checkpoint, "safe_open", HeaderOnly)


def plan(cli, files, *options: str) -> dict:
    result = cli("plan", files.clip, "--json", *SMALL, *options)
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


@pytest.mark.parametrize("sr", ["mini-x2", "mini-x4", "none"])
def test_loads_no_weights(cli, files, no_weights: None, sr: str) -> None:
    facts = plan(cli, files, "--sr", sr)
    scale = {"mini-x2": 2, "mini-x4": 4, "none": 1}[sr]
    expected = {"width": scale * WIDTH, "height": scale * HEIGHT, "frames": NUM_FRAMES}
    assert facts["output"] == expected


def test_agrees_with_the_run(cli, files, tmp_path: Path) -> None:
    for options in ([], ["--frames", "5-7"], ["--frames", "9-99", "--solver", "heun"]):
        options = [*options, "--alpha-clip"]
        facts = plan(cli, files, *files.models, "--steps", "2", *options)
        arguments = [*files.quick, *options, "--overwrite", "--report", "r.json"]
        assert cli("restore", files.clip, "o.mkv", *arguments).code == 0
        report = json.loads((tmp_path / "r.json").read_text())
        assert facts["estimate"]["evaluations"] == sum(report["evaluations"].values())
        assert facts["output"]["frames"] == report["frames"]["count"]
        assert facts["plan"] == report["plan"] and facts["guidance"] == report["guidance"]


def test_more_work_costs_more(cli, files) -> None:
    base, four = plan(cli, files), plan(cli, files, "--sr", "mini-x4")
    none, half = plan(cli, files, "--sr", "none"), plan(cli, files, "--frames", "0-4")
    memory = [facts["estimate"]["memory_bytes"] for facts in (none, base, four)]
    assert memory == sorted(set(memory))
    assert half["estimate"]["chunks"] < base["estimate"]["chunks"]
    assert half["estimate"]["refine_flops"] < base["estimate"]["refine_flops"]
    assert none["estimate"]["upscale_flops"] == 0 < base["estimate"]["upscale_flops"]
    assert plan(cli, files, "--backbone", "none")["plan"] is None


def test_for_people(cli, files, no_weights: None) -> None:
    result = cli("plan", files.clip, *SMALL, "--frames", "2-4", "--alpha0", "9")
    assert (result.code, result.err) == (0, "")
    figures = ("32x24, 11 frames", "64x48, 3 frames (2 to 4)", "of 4 frames, 2 shared")
    for text in (*figures, "2 tiles of 24x24", "in all", "mini-x2", "memory", "--alpha-clip"):
        assert text in result.out
    assert "none" in cli("plan", files.clip, "--backbone", "none").out


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (["absent.mp4"], 3, "absent.mp4"),
        (["{clip}", "--frames", "50-60"], 3, "ends before frame 50"),
        (["{clip}", "--steps", "0"], 2, "--steps is 0"),
        (["{clip}", "--tile", "8x8", "--tile-overlap", "8"], 2, "--tile-overlap is 8"),
        (["{clip}", "--sr", "{damaged}"], 4, "damaged"),
        (["{clip}", "--device", "cuda:99"], 4, "cuda:99"),
    ],
)
def test_errors(cli, files, arguments: list[str], code: int, names: str) -> None:
    paths = {"clip": files.clip, "damaged": files.damaged}
    result = cli("plan", *(word.format(**paths) for word in arguments))
    assert (result.code, result.out) == (code, "")
    assert names in result.err and result.err.count("\n") == 1
