"""`embed` writes what `--prompt-embeds` takes; `--codec tiny` is short for `--vae tiny`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dtg_restore.cli import restore as restore_command
from dtg_restore.engine.backbones.locate import FAMILIES
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import InputError
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.text.embeds import Embeds, PromptSource, read_embeds

SHAPES = {"prompt_embeds": 4, "prompt_mask": 0}


class Family:
    """With a text encoder that writes the length of a text; `asked` is what it was loaded for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.config: RestoreConfig | None = None

    def facts(self, path: Path) -> SimpleNamespace:
        return SimpleNamespace(prompt="default", negative_prompt="its opposite")

    def prompts(self, path: Path, config: RestoreConfig, device: torch.device) -> PromptSource:
        self.config = config
        return PromptSource(SHAPES, self.encode, str(path))

    def encode(self, prompts: Sequence[str]) -> list[Embeds]:
        self.asked += prompts
        return [
            {
                "prompt_embeds": torch.full((1, 3, 4), float(len(text))),
                "prompt_mask": torch.ones(1, 3, dtype=torch.int64),
            }
            for text in prompts
        ]


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Family:
    """Of the model in the folder `model`."""
    family = Family()
    entry = SimpleNamespace(name="odd", classes=("OddPipeline",), load=lambda: family)
    monkeypatch.setitem(FAMILIES, "odd", entry)
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # --offline sets it for the whole process
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "OddPipeline"}')
    return family


def lengths(path: str) -> list[float]:
    return [float(embeds["prompt_embeds"][0, 0, 0]) for embeds in read_embeds(path, SHAPES)]


def test_writes_the_given_prompts(cli, family: Family) -> None:
    words = ["--prompt", "a clean film", "--negative-prompt", ""]
    result = cli("embed", "model", "-o", "e.safetensors", *words, "--dtype", "bf16")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "e.safetensors: prompt_embeds (1, 3, 4), prompt_mask (1, 3), "
        "negative_prompt_embeds (1, 3, 4), negative_prompt_mask (1, 3)\n"
    )
    assert lengths("e.safetensors") == [12, 0]
    assert family.config is not None and family.config.dtype == "bf16"


def test_writes_the_defaults_of_the_model(cli, family: Family) -> None:
    assert cli("embed", "model", "--output", "e.safetensors").code == 0
    assert family.asked == ["default", "its opposite"]
    assert lengths("e.safetensors") == [7, 12]


def test_overwrite(cli, family: Family) -> None:
    assert cli("embed", "model", "-o", "e.safetensors").code == 0
    again = ["embed", "model", "-o", "e.safetensors", "--prompt", "another"]
    before = Path("e.safetensors").read_bytes()
    family.asked.clear()
    result = cli(*again)
    assert result.code == 3 and "exists already" in result.err
    assert family.asked == [] and Path("e.safetensors").read_bytes() == before
    assert cli(*again, "--overwrite", "--negative-prompt", "x").code == 0
    assert lengths("e.safetensors") == [7, 1]


@pytest.mark.parametrize(
    ("line", "code", "names"),
    [
        ("", 2, "MODEL"),
        ("model", 2, "--output"),
        ("model -o e.pt", 2, "--output is 'e.pt'"),
        ("model -o absent/e.safetensors", 3, "there is no folder absent"),
        ("model -o e.safetensors --device gpu", 2, "--device is 'gpu'"),
        ("model -o e.safetensors --device cuda:99", 4, "cuda:99"),
        ("model -o e.safetensors --dtype int8", 2, "--dtype is 'int8'"),
        ("minni -o e.safetensors", 2, "did you mean 'mini'"),
        ("cache -o e.safetensors", 4, "cache"),
        ("owner/name -o e.safetensors --offline", 4, "owner/name"),
    ],
)
def test_errors_come_before_the_encoder(
    cli, family: Family, tmp_path: Path, line: str, code: int, names: str
) -> None:
    (tmp_path / "cache").mkdir()  # a folder of no model
    before = sorted(tmp_path.rglob("*"))
    result = cli("embed", *line.split())
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("dtg-restore: error: ") and result.err.count("\n") == 1
    assert names in result.err
    assert family.asked == [] and sorted(tmp_path.rglob("*")) == before


def test_mini_has_no_text(cli) -> None:
    result = cli("embed", "mini", "-o", "e.safetensors")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "bug" not in result.err and not Path("e.safetensors").exists()


def test_out_of_memory(cli, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prompts: Sequence[str]) -> list[Embeds]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(family, "encode", fail)
    result = cli("embed", "model", "-o", "e.safetensors")
    assert result.code == 5 and not Path("e.safetensors").exists()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[RestoreConfig]:
    """The settings that a run would have loaded its models with."""
    seen: list[RestoreConfig] = []

    def stop(config: RestoreConfig) -> None:
        seen.append(config)
        raise InputError("far enough")

    monkeypatch.setattr(Restorer, "load", stop)
    return seen


def test_codec_tiny_is_the_tiny_vae(cli, files, loaded: list[RestoreConfig], monkeypatch) -> None:
    codecs = []
    check = restore_command._check

    def watched(*arguments) -> None:
        codecs.append(arguments[0].output["codec"])
        check(*arguments)

    monkeypatch.setattr(restore_command, "_check", watched)
    for words in (["--codec", "tiny"], ["--codec", "tiny", "--vae", "tiny"], ["--codec", "hevc"]):
        assert cli("restore", files.clip, "o.mp4", *words, "--progress", "none").code == 3
    assert [config.vae for config in loaded] == ["tiny", "tiny", "auto"]
    assert codecs == ["h264", "h264", "hevc"]
    result = cli("restore", files.clip, "o.mp4", "--codec", "tiny", "--vae", "other.safetensors")
    assert result.code == 2 and "--vae is 'other.safetensors'" in result.err
    assert len(loaded) == 3


def test_settings_of_large_models(cli, files, loaded: list[RestoreConfig]) -> None:
    words = "--vae w.safetensors --vae-tile 96x64 --prompt-embeds e --offload block --weights fp8"
    assert cli("restore", files.clip, "o.mp4", *words.split(), "--progress", "none").code == 3
    expected = RestoreConfig(
        vae="w.safetensors", vae_tile=(96, 64), prompt_embeds="e", offload="block", weights="fp8"
    )
    assert loaded == [expected]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--offload all", "none, block, model"),
        ("--weights int4", "auto, fp8, int8"),
        ("--vae-tile 96", "--vae-tile is '96'"),
    ],
)
def test_settings_that_are_none(cli, files, words: str, names: str) -> None:
    result = cli("restore", files.clip, "o.mp4", *words.split())
    assert result.code == 2 and names in result.err
