"""Every error: its exit code, one line that says what and where, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dtg_restore.engine import run as engine_run
from dtg_restore.engine.errors import OutOfMemory
from dtg_restore.engine.refine import Refiner

from .conftest import write_clip

# Arguments after `restore`, exit code, what the line has to name.  "{name}" is a path of `files`.
ERRORS = [
    ("", 2, "INPUT"),
    ("{clip}", 2, "OUTPUT"),
    ("{clip} o.mkv --stepz 3", 2, "--stepz"),
    ("{clip} o.mkv --steps x", 2, "--steps"),
    ("{clip} o.mkv --steps 0", 2, "--steps is 0"),
    ("{clip} o.mkv --t-start 1.5", 2, "--t-start is 1.5"),
    ("{clip} o.mkv --delta0 nan", 2, "--delta0 is nan"),
    ("{clip} o.mkv --seed -1", 2, "--seed is -1"),
    ("{clip} o.mkv --schedule cubic", 2, "--schedule is 'cubic'"),
    ("{clip} o.mkv --guidance strong", 2, "dtg, cfg, none"),
    ("{clip} o.mkv --solver rk4", 2, "euler, heun"),
    ("{clip} o.mkv --chunk 0", 2, "--chunk is 0"),
    ("{clip} o.mkv --overlap 3 --chunk 4", 2, "--overlap is"),
    ("{clip} o.mkv --tile 96", 2, "--tile is '96'"),
    ("{clip} o.mkv --tile -8x8", 2, "--tile is '-8x8'"),
    ("{clip} o.mkv --tile 16x16 --tile-overlap 16", 2, "--tile-overlap is 16"),
    ("{clip} o.mkv --frames 5-2", 2, "--frames is '5-2'"),
    ("{clip} o.mkv --frames all", 2, "--frames is 'all'"),
    ("{clip} o.mkv --device gpu", 2, "--device is 'gpu'"),
    ("{clip} o.mkv --dtype int8", 2, "--dtype is 'int8'"),
    ("{clip} o.mkv --runtime warp", 2, "eager"),
    ("{clip} o.mkv --prompt sharp", 2, "clean, degraded, null"),
    ("{clip} o.mkv --progress loud", 2, "--progress is 'loud'"),
    ("{clip} o.mkv --backbone minni", 2, "did you mean 'mini'"),
    ("{clip} o.mkv --backbone some/hub-id --offline", 4, "some/hub-id"),
    ("{clip} o.mkv --vae tiny", 2, "--vae is 'tiny': mini works on pixels"),
    ("{clip} o.mkv --offload block", 2, "--offload is 'block': mini is too small"),
    ("{clip} o.mkv --sr mini-x3", 2, "mini-x2, mini-x4"),
    ("{clip} o.mkv --backbone none --sr none", 2, "nothing to do"),
    ("{clip} o.mkv --codec vp8", 2, "vp8"),
    ("{clip} o.mkv --crf 99", 2, "crf 99"),
    ("{clip} o.mkv --codec ffv1 --crf 9", 2, "crf"),
    ("{clip} o.txt", 2, ".mp4"),
    ("{clip} o.png", 2, "%04d"),
    ("{clip} o.mkv --report {clip}", 2, "--report is"),
    ("{clip} o.mkv --report ./o.mkv", 2, "--report is './o.mkv'"),
    ("absent.mp4 o.mkv", 3, "absent.mp4 does not exist"),
    ("{text} o.mkv", 3, "text.mp4"),
    ("{clip} absent/o.mkv", 3, "there is no folder absent"),
    ("{clip} o.mkv --frames 500-600", 3, "ends before frame 500"),
    ("{clip} o.mkv --report absent/r.json", 3, "absent/r.json"),
    ("{clip} o.mkv --backbone absent.safetensors", 4, "no weights at absent.safetensors"),
    ("{clip} o.mkv --backbone {damaged}", 4, "damaged"),
    ("{clip} o.mkv --backbone {sr}", 4, "mini class"),
    ("{clip} o.mkv --sr {damaged}", 4, "damaged"),
    ("{clip} o.mkv --sr {backbone}", 4, "SR model"),
]


def words(line: str, files) -> list[str]:
    paths = {name: getattr(files, name) for name in ("clip", "text", "backbone", "sr", "damaged")}
    given = line.format(**paths).split()
    have = [*given[:2], *files.quick] if len(given) > 1 else given
    return ["restore", *have, *given[2:]]  # the last of an option counts


@pytest.mark.parametrize(("line", "code", "names"), ERRORS, ids=[e[0] or "nothing" for e in ERRORS])
def test_codes(cli, files, tmp_path: Path, line: str, code: int, names: str) -> None:
    result = cli(*words(line, files))
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("dtg-restore: error: ") and result.err.count("\n") == 1
    assert names in result.err
    assert list(tmp_path.iterdir()) == []


def test_empty_paths(cli, files, tmp_path: Path) -> None:
    assert cli("restore", files.clip, "", *files.quick).code == 3
    assert cli("restore", "", "o.mkv", *files.quick).code == 3
    assert list(tmp_path.iterdir()) == []


def test_cuda_that_is_not_there(cli, files) -> None:
    result = cli(*words("{clip} o.mkv --device cuda:99", files))
    assert result.code == 4 and "cuda:99" in result.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["restore {clip} o.mkv", "plan {clip}"])
def test_attention_that_is_not_there(cli, files, tmp_path: Path, command: str) -> None:
    result = cli(*command.format(clip=files.clip).split(), *files.models, "--attention", "flash3")
    assert result.code == 4 and list(tmp_path.iterdir()) == []
    assert "needs a GPU of sm_90 (Hopper), and there is none; flash_attn_interface" in result.err


def test_kernels_of_the_environment(cli, files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTG_KERNELS", "dtg_step=magic")
    result = cli(*words("{clip} o.mkv", files))
    assert result.code == 2 and "'magic'" in result.err and "bug" not in result.err


@pytest.mark.parametrize(
    ("error", "tile", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "32x16", "--chunk"),
        (MemoryError(), "32x16", "--chunk"),
        (OutOfMemory("the GPU is full", (96, 64)), "96x64", "--tile 96x64"),
        (OutOfMemory("the GPU is full"), None, "--chunk"),
    ],
    ids=["torch", "python", "with a tile", "without"],
)
def test_out_of_memory(
    cli,
    files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    tile: str | None,
    advice: str,
) -> None:
    """Once with smaller tiles where there are some; a second failure ends the run."""

    def fail(*_: object) -> None:
        raise error

    write_clip(tmp_path / "large.mkv", 2, width=64, height=48)
    monkeypatch.setattr(Refiner, "_encode", fail)
    result = cli("restore", "large.mkv", "o.mkv", *files.quick, "--tile", "0x0")
    assert result.code == 5
    *words, last = result.err.splitlines()
    assert len(words) == (tile is not None) and "error" in last and advice in last
    assert all(w.endswith(f"goes on from frame 0 with tiles of {tile}") for w in words)
    assert [path.name for path in tmp_path.iterdir()] == ["large.mkv"]


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TypeError("two lines\nof nonsense")

    monkeypatch.setattr(engine_run.Run, "_tell", fail)


def test_bug(cli, files, tmp_path: Path, bug: None) -> None:
    result = cli(*words("{clip} o.mkv", files))
    assert result.code == 1 and result.err.count("\n") == 1
    assert "TypeError: two lines of nonsense" in result.err and "--debug" in result.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_and_the_log(cli, files, bug: None) -> None:
    result = cli(*words("{clip} o.mkv --debug", files))
    assert result.code == 1
    assert "Traceback" in result.err and " DEBUG " in result.err


def test_warnings_of_the_engine_are_lines(cli, files) -> None:
    arguments = [a for a in words("{clip} o.mkv --alpha0 9", files) if a != "--alpha-clip"]
    result = cli(*arguments)
    assert result.code == 0
    assert result.err.startswith("dtg-restore: alpha exceeds") and result.err.count("\n") == 1
