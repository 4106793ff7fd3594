"""`dtg-restore shots`, and `--shots` with what it writes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from dtg_restore.engine.media import open_writer
from dtg_restore.engine.types import ColourTags

from .conftest import HEIGHT, WIDTH

LIST = "# first frame of every shot\n0\n5\n9\n"


@pytest.fixture
def film(tmp_path: Path) -> str:
    """Three still shots, of 5, 4 and 6 frames."""
    path, size = tmp_path / "film.mkv", {"width": WIDTH, "height": HEIGHT}
    pictures = torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    with open_writer(path, **size, fps=Fraction(24), colour=ColourTags(), codec="ffv1") as writer:
        for picture, length in zip(pictures, (5, 4, 6), strict=True):
            for _ in range(length):
                writer.write(picture)
    return str(path)


def test_the_list_is_printed(cli, film: str) -> None:
    result = cli("shots", film, "--progress", "none")
    assert (result.code, result.out, result.err) == (0, LIST, "")


def test_the_list_is_written_and_taken(cli, film: str, files, tmp_path: Path) -> None:
    result = cli("shots", film, "-o", "list.txt", "--progress", "plain")
    assert result.code == 0 and result.out == "list.txt: 3 shots\n"
    assert "looking for cuts in frame 15 of 15" in result.err
    path = tmp_path / "list.txt"
    assert path.read_text() == LIST
    path.write_text("0\n5\n")  # corrected by hand
    options = [*files.quick, "--shots", "list.txt", "--report", "r.json"]
    assert cli("restore", film, "o.mkv", *options).code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["shots"] == [0, 5]


def test_a_list_that_exists_is_kept(cli, film: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("5\n")
    result = cli("shots", film, "-o", "list.txt", "--progress", "none")
    assert result.code == 3 and "list.txt" in result.err
    assert (tmp_path / "list.txt").read_text() == "5\n"
    assert cli("shots", film, "-o", "list.txt", "--overwrite", "--progress", "none").code == 0
    assert (tmp_path / "list.txt").read_text() == LIST


@pytest.mark.parametrize(
    ("options", "shots"),
    [([], 3), (["--shots", "none"], 1), (["--frames", "5-8"], 1), (["--frames", "4-5"], 2)],
)
def test_plan_counts_them(cli, film: str, options: list[str], shots: int) -> None:
    cut = ["--chunk", "4", "--overlap", "2"]
    result = cli("plan", film, *cut, *options)
    assert result.code == 0
    assert f"in {shots} shot" in result.out
    facts = json.loads(cli("plan", film, "--json", *cut, *options).out)
    assert facts["estimate"]["shots"] == shots


@pytest.mark.parametrize("command", ["restore", "plan"])
def test_a_list_that_is_none(cli, film: str, files, tmp_path: Path, command: str) -> None:
    (tmp_path / "list.txt").write_text("0\nfive\n")
    target = ["o.mkv", *files.quick] if command == "restore" else []
    for name, words in {"list.txt": "line 2: 'five'", "gone.txt": "No such file"}.items():
        result = cli(command, film, *target, "--shots", name)
        assert result.code == 3 and words in result.err
        assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "o.mkv").exists()
