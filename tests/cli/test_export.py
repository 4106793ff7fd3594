"""`dtg-restore export` and `--bundle`: round trips, two processes, and processes that are ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.bundle.manifest import read_manifest
from dtg_restore.engine.media import open_reader
from dtg_restore.export import build as build_module

from .conftest import start

pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

EXACT = 60  # dB to the eager engine, in fp32
SHAPES = ["--tile", "24x24", "--chunk", "4", "--batch", "2"]
RUN = [
    *("--chunk", "4", "--overlap", "2", "--tile-overlap", "8", "--steps", "2", "--alpha-clip"),
    *("--codec", "ffv1", "--overwrite", "--device", "cpu", "--progress", "none"),
]
QUIET = ["--device", "cpu", "--progress", "none"]
TOLD = ["--device", "cpu", "--progress", "plain"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundles in an empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DTG_CACHE", str(folder))
    return folder / "bundles"


def frames_of(path: str) -> Tensor:
    with open_reader(path) as reader:
        return torch.stack(list(reader))


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean().clamp_min(1e-12)))


def names(folder: Path, but: str = ".lock") -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != but)


# -- round trips ----------------------------------------------------------------------------------


def test_ort_equals_eager(cli, files, tmp_path: Path) -> None:
    result = cli("export", *files.models, *SHAPES, "-o", "b", *TOLD)
    assert result.code == 0 and "error" not in result.err
    form = r"b: 3 components for ort in fp32 on cpu, \d+ kB, built in 0:\d\d\n"
    assert re.fullmatch(form, result.out)
    assert cli("restore", files.clip, "eager.mkv", *files.models, "--tile", "24x24", *RUN).code == 0
    assert cli("restore", files.clip, "bundle.mkv", "--bundle", "b", *RUN).code == 0
    eager, bundle = frames_of("eager.mkv"), frames_of("bundle.mkv")
    assert bundle.shape == eager.shape == (11, 3, 48, 64)
    assert psnr(bundle, eager) >= EXACT

    # The parts alone are models as others are.
    part = ("--backbone", "b", "--sr", "none")
    assert cli("restore", files.clip, "part.mkv", *part, *RUN).code == 0
    assert frames_of("part.mkv").shape == (11, 3, 24, 32)
    assert cli("restore", files.clip, "x4.mkv", "--bundle", "b", "--sr", "mini-x4", *RUN).code == 0
    assert frames_of("x4.mkv").shape == (11, 3, 96, 128)
    facts = json.loads(cli("plan", files.clip, "--bundle", "b", "--json").out)
    assert facts["plan"]["tile"] == [24, 24] and facts["output"]["width"] == 64

    # What was compiled is in the cache; the file that is damaged is not executed.
    again = cli("export", *files.models, *SHAPES, "-o", "c", *TOLD)
    assert again.code == 0 and "from the cache" in again.out
    path = tmp_path / "b" / "upscale.onnx"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    result = cli("restore", files.clip, "o.mkv", "--bundle", "b", *RUN)
    assert result.code == 4 and "upscale.onnx" in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "o.mkv").exists()
    assert cli("restore", files.clip, "o.mkv", "--bundle", "b", "--backbone", "mini").code == 2


def test_onnx_without_a_backbone(cli, files) -> None:
    assert cli(*sr_export(files, "-o", "b")).code == 0
    plain = ("--backbone", "none", "--sr", files.sr)
    assert cli("restore", files.clip, "eager.mkv", *plain, *RUN).code == 0
    assert cli("restore", files.clip, "bundle.mkv", "--bundle", "b", *RUN).code == 0
    assert psnr(frames_of("bundle.mkv"), frames_of("eager.mkv")) >= EXACT


def test_onnx_without_sr(cli, files) -> None:
    models = ("--backbone", files.backbone, "--sr", "none")
    assert cli("export", *models, *SHAPES, "--to", "onnx", "-o", "b", *QUIET).code == 0
    assert list(read_manifest(Path("b")).models) == ["backbone", "codec"]
    assert cli("restore", files.clip, "eager.mkv", *models, "--tile", "24x24", *RUN).code == 0
    bundle = ("--bundle", "b", "--sr", "none", "--runtime", "ort")
    assert cli("restore", files.clip, "bundle.mkv", *bundle, *RUN).code == 0
    assert psnr(frames_of("bundle.mkv"), frames_of("eager.mkv")) >= EXACT


@pytest.mark.slow
def test_aot_equals_eager(cli, files) -> None:
    assert cli("export", *files.models, *SHAPES, "--to", "aot", "-o", "b", *QUIET).code == 0
    assert cli("restore", files.clip, "eager.mkv", *files.models, "--tile", "24x24", *RUN).code == 0
    assert cli("restore", files.clip, "bundle.mkv", "--bundle", "b", *RUN).code == 0
    assert psnr(frames_of("bundle.mkv"), frames_of("eager.mkv")) >= EXACT


# -- processes ------------------------------------------------------------------------------------


def sr_export(files, *options: str) -> list[str]:
    return ["export", "--backbone", "none", "--sr", files.sr, "--to", "onnx", *TOLD, *options]


def until_it_builds(process: subprocess.Popen[str], cache: Path) -> None:
    """Wait for the temporary folder of an export."""
    while process.poll() is None and not list(cache.glob(".*.part")):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()


def test_two_processes_build_once(files, tmp_path: Path, cache: Path) -> None:
    options = ["export", *files.models, *SHAPES, "--to", "onnx", *TOLD]
    first = start(*options, "-o", "a", cwd=tmp_path)
    until_it_builds(first, cache)
    second = start(*options, "-o", "b", cwd=tmp_path)
    results = [process.communicate(timeout=300) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert "built in" in results[0][0] and "from the cache" in results[1][0]
    waited = "dtg-restore: another process exports the same bundle: waiting for it\n"
    assert results[1][1] in (f"loading\n{waited}", "loading\n")  # said once, if it came in time
    assert "exporting" in results[0][1] and waited not in results[0][1]
    assert read_manifest(tmp_path / "a") == read_manifest(tmp_path / "b")
    assert len(names(cache)) == 1


def test_a_killed_export_leaves_nothing_that_opens(files, tmp_path: Path, cache: Path) -> None:
    process = start(*sr_export(files, "-o", "b"), cwd=tmp_path)
    until_it_builds(process, cache)
    process.kill()
    process.communicate()
    (left,) = names(cache)
    assert left.endswith(".part") and names(tmp_path) == []  # it was killed in the middle
    process = start(*sr_export(files, "-o", "b"), cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "error" not in err and "built in" in out
    assert names(tmp_path) == ["b"] and left not in names(cache) and len(names(cache)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_export(files, tmp_path: Path, cache: Path, number: signal.Signals) -> None:
    process = start(*sr_export(files, "-o", "b"), cwd=tmp_path)
    until_it_builds(process, cache)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    line = f"dtg-restore: interrupted by {number.name}: b was not written"
    assert (process.returncode, out, err.splitlines()[-1]) == (6, "", line)
    assert names(cache) == names(tmp_path) == []


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that were compiled, by a stand-in that writes a few bytes."""
    seen: list[str] = []

    def compile_stage(job) -> tuple:
        seen.append(job.stage.name)
        (job.folder / job.stage.name).write_text(job.stage.name)
        return ((job.stage.name,), {}, {}, None)

    monkeypatch.setattr(build_module, "compile_stage", compile_stage)
    return seen


def test_options_reach_the_bundle(cli, files, compiled: list[str]) -> None:
    options = "--tile 24x24,16x32 --chunk 6 --batch 2,1 --dtype bf16 --opset 21 --prompt degraded"
    result = cli("export", *files.models, *options.split(), "-o", "b", *QUIET)
    assert (result.code, result.err) == (0, "")
    manifest = read_manifest(Path("b"))
    assert manifest.precision == "bf16" and manifest.made_with["request"]["opset"] == 21
    facts = manifest.models["backbone"]["facts"]
    assert facts["buckets"] == [
        {"frames": 6, "height": 24, "width": 24, "batches": [1, 2]},
        {"frames": 6, "height": 32, "width": 16, "batches": [1, 2]},
    ]
    assert facts["prompt"] == "degraded" and len(compiled) == 6


def test_progress(cli, files, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtg_restore.cli.progress.JsonLines.interval", 0.0)
    monkeypatch.setattr("dtg_restore.cli.progress.Plain.interval", 0.0)
    options = ["export", *files.models, *SHAPES, "--device", "cpu"]
    events = [json.loads(line) for line in cli(*options, "--progress", "json").out.splitlines()]
    assert [event["event"] for event in events] == ["load", *["progress"] * 5, "done"]
    steps = events[1:-1]
    assert [step["stage"] for step in steps] == ["load", *["export"] * 3, "check"]
    assert [step["component"] for step in steps[1:-1]] == compiled
    fractions = [step["fraction"] for step in steps]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert steps[-1]["eta_seconds"] == 0.0
    assert events[-1]["report"]["was_cached"] is False

    result = cli(*options, "--opset", "21", "--progress", "plain")
    lines = result.err.splitlines()
    assert lines[0] == "loading" and len(lines) == 6
    form = r"\[0:\d\d\] exporting +17%  velocity.0.2x4x24x24 \(2 of 3\)  ETA 0:\d\d"
    assert re.fullmatch(form, lines[3])
    again = cli(*options, "--opset", "21", "--progress", "plain")
    assert again.err == "loading\n" and "from the cache" in again.out and len(compiled) == 6


# Arguments, exit code, what the line has to name.
ERRORS = [
    ("--to openvino", 2, "--to is 'openvino'"),
    ("--tile 24", 2, "--tile is '24'"),
    ("--tile 24x24,", 2, "--tile is ''"),
    ("--tile 0x0", 2, "--tile is 0"),
    ("--batch 0", 2, "--batch is 0"),
    ("--batch 1,x", 2, "--batch is '1,x'"),
    ("--chunk 0", 2, "--chunk is 0"),
    ("--dtype int4", 2, "--dtype is 'int4'"),
    ("--dtype fp8", 2, "calibrate"),
    ("--opset 9", 2, "--opset is 9"),
    ("--refit", 2, "--refit is an option of tensorrt"),
    ("--backbone none --sr none", 2, "nothing to export"),
    ("--backbone minni", 2, "did you mean 'mini'"),
    ("--backbone absent.safetensors", 4, "no weights at absent.safetensors"),
    ("--backbone some/hub-id --offline", 4, "some/hub-id"),
    ("--sr mini-x3", 2, "mini-x2, mini-x4"),
    ("--vae tiny", 2, "--vae is 'tiny'"),
    ("--prompt sharp", 2, "clean, degraded, null"),
    ("--device gpu", 2, "--device is 'gpu'"),
    ("--device cuda:99", 4, "cuda:99"),
    ("--progress loud", 2, "--progress is 'loud'"),
    ("-o absent/b", 3, "there is no folder absent"),
    ("-o full", 3, "full exists already"),
    ("-o full --overwrite", 3, "full is not replaced: full is no bundle"),
]


@pytest.mark.parametrize(("line", "code", "says"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors(
    cli, files, tmp_path: Path, compiled: list[str], line: str, code: int, says: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").touch()
    options = [*files.models, *SHAPES, "-o", "b", *QUIET, *line.split()]
    result = cli("export", *options)
    assert (result.code, result.out) == (code, "")
    assert says in result.err and result.err.count("\n") == 1
    assert result.err.startswith("dtg-restore: error: ")
    assert compiled == [] and names(tmp_path) == ["full"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["restore", "{clip}", "o.mkv", "--bundle", "absent"], 4, "absent is no bundle"),
        (["plan", "{clip}", "--bundle", "absent"], 4, "absent is no bundle"),
        (["plan", "{clip}", "--bundle", "absent", "--backbone", "mini"], 2, "--backbone"),
    ],
)
def test_bundles_that_are_none(
    cli: Callable, files, arguments: list[str], code: int, says: str
) -> None:
    result = cli(*(word.format(clip=files.clip) for word in arguments))
    assert result.code == code and says in result.err and result.err.count("\n") == 1
