"""`dtg-restore restore` from file to file."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from dtg_restore.engine.media import open_reader, probe

from .conftest import HEIGHT, NUM_FRAMES, WIDTH


def frames_of(path: Path | str) -> torch.Tensor:
    with open_reader(path) as reader:
        return torch.stack(list(reader))


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("out.mp4", []),
        ("out.mkv", ["--codec", "ffv1"]),
        ("out.mov", ["--codec", "prores"]),
        ("out.mp4", ["--codec", "hevc", "--crf", "30"]),
        ("out.webm", ["--codec", "vp9", "--chroma", "444"]),
        ("pictures/", []),
        ("shot_%03d.png", []),
    ],
)
def test_end_to_end(cli, files, target: str, options: list[str]) -> None:
    result = cli("restore", files.clip, target, *files.quick, *options)
    assert (result.code, result.out, result.err) == (0, "", "")
    frames = frames_of(target)
    assert frames.shape == (NUM_FRAMES, 3, 2 * HEIGHT, 2 * WIDTH)
    small = torch.nn.functional.interpolate(frames, scale_factor=0.5, mode="area")
    assert (small - frames_of(files.clip)).abs().mean() < 0.3  # restored, not made up


@pytest.mark.parametrize(("target", "options"), [("x.mkv", ["--codec", "ffv1"]), ("x/", [])])
def test_split_is_unsplit(cli, files, tmp_path: Path, target: str, options: list[str]) -> None:
    def restore(name: str, *more: str) -> torch.Tensor:
        path = target.replace("x", name)
        assert cli("restore", files.clip, path, *files.quick, *options, *more).code == 0
        return frames_of(path)

    whole = restore("whole")
    parts = [restore("a", "--frames", "0-4"), restore("b", "--frames", "5-99")]
    assert [len(part) for part in parts] == [5, NUM_FRAMES - 5]
    assert torch.equal(torch.cat(parts), whole)


def test_pictures_keep_their_numbers(cli, files, tmp_path: Path) -> None:
    assert cli("restore", files.clip, "out", *files.quick, "--frames", "7").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000007.png"]


@pytest.mark.parametrize(
    ("options", "scale"),
    [(["--backbone", "none"], 2), (["--sr", "none"], 1), (["--guidance", "none"], 2)],
)
def test_stages_can_be_left_out(cli, files, options: list[str], scale: int) -> None:
    assert cli("restore", files.clip, "out.mkv", *files.quick, *options).code == 0
    assert probe("out.mkv").width == scale * WIDTH


def test_settings_reach_the_engine(cli, files, tmp_path: Path) -> None:
    options = {
        "guidance": "cfg", "t_start": 0.31, "steps": 3, "delta0": 0.11, "alpha0": 1.7,
        "schedule": "cosine", "kappa": 5.0, "space": "velocity", "tau_floor": 0.3,
        "prompt": "null", "negative_prompt": "degraded", "seed": 12, "solver": "heun",
        "shift": 1.5, "chunk": 6, "overlap": 2, "tile_overlap": 4, "tile_batch": 2,
        "runtime": "eager", "device": "cpu", "dtype": "fp32", "vae": "auto", "offload": "none",
        "weights": "auto", "prompt_embeds": "unused.safetensors", "elide_tol": 0.02,
        "reuse_tol": 0.03, "cache_tol": 0.04,
        "branches": "sequential", "attention": "sdpa", "color_match": "adain", "threads": 1,
        "shots": "none",
    }  # fmt: skip
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    flags = [
        "--alpha-clip",
        "--full-chunks",
        "--offline",
        "--tile",
        "0x16",
        "--vae-tile",
        "64x0",
        "--report",
        "r.json",
    ]
    common = ["--progress", "none", "--frames", "0-1"]
    result = cli("restore", files.clip, "o.mkv", *files.models, *words, *flags, *common)
    assert (result.code, result.err) == (0, "")
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    models = {"backbone": files.backbone, "sr": files.sr}
    flagged = {"alpha_clip": True, "full_chunks": True, "tile": [0, 16], "vae_tile": [64, 0]}
    assert settings == options | models | flagged


def test_report(cli, files, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("an older report")
    result = cli("restore", files.clip, "o.mkv", *files.quick, "--report", "r.json")
    assert result.code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    sha = hashlib.sha256((tmp_path / "o.mkv").read_bytes()).hexdigest()
    assert report["output"] == {
        "path": "o.mkv", "sha256": sha, "width": 2 * WIDTH, "height": 2 * HEIGHT
    }  # fmt: skip
    assert report["frames"] == {"first": 0, "count": NUM_FRAMES}
    chunks = 5  # of 4 frames, 2 shared, over 11
    assert sum(report["evaluations"].values()) == chunks * report["plan"]["evaluations"]
    assert {"decode", "refine", "upscale", "encode", "total"} <= report["seconds"].keys()
    assert report["peak_memory_bytes"]["host"] > 1e7
    assert report["versions"]["torch"] == torch.__version__
    assert report["weights"]["backbone"]["path"] == files.backbone
    assert len(report["weights"]["sr"]["sha256"]) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mkv", "r.json"]


def test_overwrite(cli, files, tmp_path: Path) -> None:
    (tmp_path / "o.mkv").write_text("precious")
    assert cli("restore", files.clip, "o.mkv", *files.quick).code == 3
    assert (tmp_path / "o.mkv").read_text() == "precious"
    assert cli("restore", files.clip, "o.mkv", *files.quick, "--overwrite").code == 0
    assert len(frames_of("o.mkv")) == NUM_FRAMES


def test_never_writes_over_its_input(cli, files, tmp_path: Path) -> None:
    pictures = [f"pictures/{n:06}.png" for n in range(NUM_FRAMES)]
    assert cli("restore", files.clip, "pictures", *files.quick, "--backbone", "none").code == 0
    before = [Path(p).read_bytes() for p in pictures]
    for source in ("pictures", "pictures/", "./pictures/%06d.png"):
        result = cli("restore", source, "pictures", *files.quick, "--overwrite")
        assert result.code == 2 and "the same" in result.err
    assert [Path(p).read_bytes() for p in pictures] == before


def test_what_is_left_of_a_cut_file(cli, files, tmp_path: Path) -> None:
    assert cli("restore", files.clip, "whole.mp4", *files.quick, "--backbone", "none").code == 0
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "whole.mp4").read_bytes()[:-9000])
    result = cli("restore", "cut.mp4", "o.mkv", *files.quick)
    assert result.code == 3 and (
        found := re.search(r"frames (0-\d+) can still be read", result.err)
    )
    for command in (["plan", "cut.mp4"], ["restore", "cut.mp4", "o.mkv", *files.quick]):
        assert cli(*command, "--frames", found[1]).code == 0
    assert 0 < len(frames_of("o.mkv")) <= int(found[1][2:]) + 1


def test_chroma_of_a_video(cli, files) -> None:
    for chroma in ("420", "444"):
        options = (*files.quick, "--backbone", "none", "--chroma", chroma)
        assert cli("restore", files.clip, f"{chroma}.mp4", *options).code == 0
        assert probe(f"{chroma}.mp4").chroma == chroma
    result = cli("restore", files.clip, "a.mp4", *files.quick, "--chroma", "411")
    assert (result.code, result.out) == (2, "")
    assert "h264 has no chroma '411'; it has 420, 422, 444" in result.err
