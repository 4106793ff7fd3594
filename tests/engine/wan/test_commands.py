"""Wan through the command line: what works, and what each unusable folder says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dtg_restore.cli.main import main
from dtg_restore.engine.media import probe

SHARD = "diffusion_pytorch_model.safetensors"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def restore(clip: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `restore` on five small frames; its code and the line that it ends with."""
    source = pictures(clip(5, 32, 48))

    def restore(backbone: Path | str, *options: str) -> tuple[int, str]:
        settings = ["--steps", "1", "--sr", "none", "--device", "cpu", "--progress", "none"]
        arguments = [str(source), str(tmp_path / "out"), "--backbone", str(backbone)]
        code = main(["restore", *arguments, *settings, "--overwrite", *options])
        return code, capsys.readouterr().err.strip()

    return restore


def test_restores(model: Path, restore: Run, tmp_path: Path) -> None:
    prompts = ("--prompt-embeds", str(model / "prompts.safetensors"))
    assert restore(model, *prompts, "--offload", "block", "--weights", "int8") == (0, "")
    assert (probe(tmp_path / "out").width, len(list((tmp_path / "out").iterdir()))) == (48, 5)


def truncate(folder: Path) -> None:
    path = folder / "transformer" / SHARD
    path.write_bytes(path.read_bytes()[:-100])


def quantise(folder: Path) -> None:
    path = folder / "transformer" / SHARD
    state = load_file(path)
    save_file(state | {"proj_out.bias": state["proj_out.bias"].to(torch.int8)}, path)


def drop_index(folder: Path) -> None:
    path = folder / "transformer" / SHARD
    keys = sorted(state := load_file(path))
    for i, part in enumerate((keys[::2], keys[1::2])):
        save_file({key: state[key] for key in part}, path.with_name(f"part-{i}.safetensors"))
    path.unlink()


def another_model(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def another_transformer(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))


def no_vae_weights(folder: Path) -> None:
    (folder / "vae" / SHARD).unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "is cut short"),
        (quantise, "proj_out.bias in"),
        (drop_index, "no *.safetensors.index.json"),
        (another_model, "'FluxPipeline', which is not known"),
        (another_transformer, "holds a FluxTransformer2DModel"),
        (no_vae_weights, "vae holds no .safetensors weights"),
    ],
)
def test_unusable_folders(copied: Path, restore: Run, damage: Any, says: str) -> None:
    damage(copied)
    code, text = restore(copied, "--prompt-embeds", str(copied / "prompts.safetensors"))
    assert code == 4 and says in text and "\n" not in text


def test_hub_id_offline(restore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that the option's own setting is undone
    code, text = restore("some-owner/some-model", "--offline")
    assert code == 4 and "some-owner/some-model" in text and "\n" not in text


def test_prompts_are_missing(model: Path, restore: Run) -> None:
    code, text = restore(model)
    assert code == 2 and "--prompt-embeds" in text and "dtg-restore embed" in text
