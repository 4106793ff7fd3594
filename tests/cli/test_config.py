"""Options from files, and into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.cli.config_text import dump, load
from dtg_restore.engine.media.atomic import AtomicFile, write_text

from .conftest import start

TOML = """
steps = 3
t-start = 0.2
alpha_clip = true
full-chunks = false
tile = [16, 24]
vae_tile = "8x8"
tau-floor = 0
frames = "1-2"
json = true
codec = "ffv1"
"""
YAML = """
# Of the same run.
steps: 3
t_start: 2e-1
alpha-clip: true
full-chunks: false
tile: 16x24
vae-tile: [8, 8]
tau-floor: 0
frames: 1-2
json: true
codec: ffv1
"""
WORDS = (
    "--steps 3 --t-start 0.2 --alpha-clip --no-full-chunks --tile 16x24 --vae-tile 8x8 "
    "--tau-floor 0 --frames 1-2 --json"
)


@pytest.fixture
def planned(cli, files):
    """The plan as data, for more arguments."""

    def planned(*arguments: str) -> dict[str, Any]:
        result = cli("plan", files.clip, "--sr", "none", *arguments)
        assert (result.code, result.err) == (0, "")
        plan = json.loads(result.out)
        return {key: plan[key] for key in ("settings", "first_frame", "output")}

    return planned


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yaml", YAML), ("a.YML", YAML)])
def test_a_file_is_as_good_as_options(planned, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert planned("--config", name) == planned(*WORDS.split())


def test_the_command_line_wins(planned, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML + "seed = 5")
    words = ["--steps", "7", "--no-alpha-clip", "--tile", "0x0", "--seed", "0"]
    before, after = (planned(*o)["settings"] for o in ([*words, "--config", "a.toml"],
                                                       ["--config", "a.toml", *words]))  # fmt: skip
    assert before == after
    expected = {"steps": 7, "alpha_clip": False, "tile": [0, 0], "seed": 0, "t_start": 0.2}
    assert {name: before[name] for name in expected} == expected


def test_the_later_file_wins(planned, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.yaml").write_text("steps: 4\nkappa: 2\n")
    settings = planned("--config", "a.toml", "--config", "b.yaml")["settings"]
    assert (settings["steps"], settings["kappa"], settings["t_start"]) == (4, 2, 0.2)


def test_a_restoration(cli, files, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        f"backbone: none\nsr: {files.sr}\ndevice: cpu\nprogress: none\ncodec: ffv1\n"
        "overwrite: true\nreport: r.json\nframes: 3\njson: true\nto: ort\n"
    )
    (tmp_path / "o.mkv").write_text("older")
    result = cli("restore", files.clip, "o.mkv", "--config", "a.yaml")
    assert (result.code, result.out, result.err) == (0, "", "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["settings"]["sr"] == files.sr
    assert report["frames"] == {"first": 3, "count": 1}


# Text of a file, what the line names beside the file.
REFUSED = [
    ("stpes = 3", "no option 'stpes': did you mean 'steps'?"),
    ("chunks = 3", "did you mean 'chunk'?"),
    ("zzzz = 3", "see dtg-restore plan --help"),
    ("config = 'b.toml'", "config belongs on the command line"),
    ("save_config = 'b.toml'", "save_config belongs on the command line"),
    ("debug = true", "debug belongs on the command line"),
    ("source = 'a.mp4'", "no option 'source'"),
    ("steps = 1.5", "steps is 1.5: a whole number is expected"),
    ("steps = true", "steps is True: a whole number is expected"),
    ("steps = '3'", "steps is '3': a whole number is expected"),
    ("t-start = '0.2'", "t-start is '0.2': a number is expected"),
    ("alpha-clip = 1", "alpha-clip is 1: true or false is expected"),
    ("prompt = 5", "prompt is 5: a text is expected"),
    ("prompt = 2020-01-01", "a text is expected"),
    ("tile = 96", 'tile is 96: a size such as "96x96" or [96, 96] is expected'),
    ("tile = [96]", "tile is [96]: a size"),
    ("tile = [9.5, 9]", "tile is [9.5, 9]: a size"),
    ("tile = [-8, 8]", "tile is [-8, 8]: a size"),
    ("frames = [0, 5]", 'frames is [0, 5]: frames such as "0-99"'),
    ("[guidance]\nsteps = 3", "guidance is a table"),
    ("[restore]\nsteps = 3", "restore is a table"),
    ("steps = 0", "steps is 0: it must lie"),
    ("tile = 'big'", "tile is 'big'"),
    ("frames = '5-2'", "frames is '5-2'"),
    ("schedule = 'cubic'", "schedule is 'cubic'"),
    ("steps = 3\nsteps = 4", "overwrite a value"),
    ("t-start = 0.3\nt_start = 0.2", "t_start stands there twice"),
    ("steps =", "Invalid value"),
    ("a = " + "[" * 5000, "nested"),
]
REFUSED_YAML = [
    ("steps: 3\nsteps: 4", "'steps' stands there twice"),
    ("steps:", "steps is None: a whole number is expected"),
    ("prompt: no", "prompt is False: a text is expected"),
    ("- steps", "holds no options"),
    ("only words", "holds no options"),
    ("1: 2", "no option '1'"),
    ("steps: [", "while parsing"),
    ("steps: 3\n---\nsteps: 4", "single document"),
    ("x: !!python/object/apply:os.getcwd []", "python/object"),
    ("a: " + "[" * 2000, "nested"),
    ("? [1, 2]\n: 3", "unhashable"),
]
CASES = [(f"{i}.toml", *case) for i, case in enumerate(REFUSED)]
CASES += [(f"{i}.yaml", *case) for i, case in enumerate(REFUSED_YAML)]


@pytest.mark.parametrize(
    ("name", "text", "says"), CASES, ids=[f"{name} {text[:30]}" for name, text, _ in CASES]
)
def test_refused(cli, files, tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    result = cli("plan", files.clip, "--config", name)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("dtg-restore: error: ") and result.err.count("\n") == 1
    assert name in result.err and says in result.err


def test_files_that_cannot_be_read(cli, files, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.yaml").write_bytes("prompt: é".encode("latin-1"))
    for name, says in {
        "absent.toml": "No such file",
        "folder.toml": "directory",
        "latin.yaml": "not UTF-8",
        "a.json": "ends in .toml or .yaml",
        "": "ends in .toml or .yaml",
    }.items():
        result = cli("plan", files.clip, "--config", name)
        assert result.code == 2 and says in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize("name", ["a.toml", "a.yaml"])
@pytest.mark.parametrize("text", ["", "\ufeff", "# nothing\n"], ids=["empty", "mark", "comment"])
def test_a_file_without_options(planned, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert planned("--config", name, "--json") == planned("--json")


def test_which_file(cli, files, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("steps = 3\ncrf = 99\n")
    (tmp_path / "b.toml").write_text("chunk = 0\n")
    result = cli("plan", files.clip, "--config", "a.toml", "--config", "b.toml")
    assert result.code == 2 and "error: b.toml: chunk is 0" in result.err
    result = cli("plan", files.clip, "--config", "b.toml", "--chunk", "0")
    assert result.code == 2 and "error: --chunk is 0" in result.err


@pytest.mark.parametrize("backbone", ["", 'backbone = "mini"'])
def test_bundle_in_a_file(cli, files, tmp_path: Path, backbone: str) -> None:
    (tmp_path / "a.toml").write_text('bundle = "absent"\n' + backbone)
    result = cli("plan", files.clip, "--config", "a.toml")
    assert (result.code, "exclude" in result.err) == ((2, True) if backbone else (4, False))
    assert cli("plan", files.clip, "--config", "a.toml", *files.models).code == 0


def test_bundle_beside_a_file(cli, files, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('backbone = "mini"')
    result = cli("plan", files.clip, "--config", "a.toml", "--bundle", "absent")
    assert result.code == 4 and "absent" in result.err


@pytest.mark.parametrize("name", ["s.toml", "s.yaml"])
def test_saved_options_give_the_same_run(planned, files, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.toml").write_text("kappa = 2\nsteps = 9\n")
    words = [*WORDS.split(), "--prompt", "null", "--seed", str(2**63 - 1), "--offline"]
    (tmp_path / name).write_text("an older file")
    run = planned(*words, "--config", "a.toml", "--save-config", name)
    assert planned("--config", name) == run
    saved = load(name)
    assert saved["kappa"] == 2 and saved["steps"] == 3 and saved["offline"] is True
    assert {"chunk", "config", "save-config", "debug"}.isdisjoint(saved)  # the defaults, and ours
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", name]


def test_save_in_place(planned, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("steps: 5\njson: true\nkappa: 2\n")
    planned("--config", "a.yaml", "--save-config", "a.yaml", "--steps", "6")
    assert load("a.yaml") == {"json": True, "steps": 6, "kappa": 2.0, "sr": "none"}


def test_nothing_given(cli, files, tmp_path: Path) -> None:
    assert cli("plan", files.clip, "--save-config", "a.yaml").code == 0
    assert load("a.yaml") == {}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--save-config a.json", 2, "--save-config is 'a.json'"),
        ("--save-config absent/a.toml", 3, "no folder absent"),
        ("--save-config a.toml --steps 0", 2, "--steps is 0"),
        ("--save-config a.toml --sr \udcff", 2, "not Unicode"),
        ("--save-config a.yaml --sr \udcff", 2, "not Unicode"),
    ],
    ids=["suffix", "folder", "setting", "bytes", "bytes in YAML"],
)
def test_not_saved(cli, files, tmp_path: Path, words: str, code: int, says: str) -> None:
    result = cli("plan", files.clip, *words.split())
    assert result.code == code and says in result.err and result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


TEXTS = (
    "", " lead and trail ", "no", "null", "~", "1e-3", "12", "0x10", "2020-01-01", "- a", "a: b",
    "'\"\\", "two\nlines\r\n\ttab", "\0\x7f\x85\u2028\ufeff", "Größe 漢 🎞", "{x}", "%04d", "!!str",
    "&a *a", "#",
)  # fmt: skip
NUMBERS = (True, False, 0, 2**63 - 1, 0.1, 1e-7, 1e300, 5e-324, -0.0)


@pytest.mark.parametrize("name", ["a.toml", "a.yaml"])
def test_every_value_comes_back(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    values = {f"key-{i}": value for i, value in enumerate((*TEXTS, *NUMBERS))}
    write_text(AtomicFile(path, overwrite=True), dump(path, values))
    loaded = load(path)
    assert loaded == values
    assert [type(value) for value in loaded.values()] == [type(value) for value in values.values()]


def test_export_takes_lists(cli, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('tile = [[96, 64], "32x32"]\nbatch = [1, 2]\nto = "nothing"')
    result = cli("export", "--config", "a.toml", "--save-config", "b.toml")
    assert result.code == 2 and "a.toml: to is 'nothing'" in result.err
    (tmp_path / "a.toml").write_text('tile = [[96, 64], "32x32"]\nbatch = [1, 2]\ncrf = 3\n')
    result = cli("export", "--config", "a.toml", "--save-config", "b.toml", "--backbone", "absent")
    assert result.code in (2, 4) and "absent" in result.err
    assert load("b.toml") == {"tile": "96x64,32x32", "batch": "1,2", "backbone": "absent"}


def test_a_wrong_file_is_answered_without_the_heavy_libraries(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("stpes: 3")
    code = (
        "import sys; from dtg_restore.cli.main import main\n"
        "assert main(['restore', 'a', 'b', '--config', 'a.yaml']) == 2\n"
        "assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    )
    process = start(cwd=tmp_path, code=code)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
