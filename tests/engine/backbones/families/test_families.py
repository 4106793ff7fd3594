"""Which family a folder is of, what is read from it without diffusers, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.backbones.locate import locate
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError

CPU = torch.device("cpu")
LTX = pytest.mark.parametrize("saved", ["ltx"], indirect=True)


def test_the_folder_and_its_transformer_name_the_family(saved: Any) -> None:
    family = locate(str(saved.folder)).family
    assert saved.case.name.startswith(family)
    assert locate(str(saved.folder / "transformer")).family == family
    assert saved.family.facts(saved.folder) == saved.family.facts(saved.folder / "transformer")


def test_facts_are_those_of_the_module(saved: Any) -> None:
    facts, module = saved.family.facts(saved.folder), saved.pipeline.transformer
    stacks = [getattr(module, name) for name in saved.case.blocks]
    seen: list[torch.Size] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).shape)

    hook = stacks[0][0].register_forward_pre_hook(look, with_kwargs=True)
    x = saved.case.noise(0)
    with torch.no_grad():
        saved.case.call(saved.pipeline, x, saved.case.embeds(0), "latent")
    hook.remove()
    frames, height, width = x.shape[2:]
    codec = facts.codec
    size = (frames - 1) * codec.frames + 1, height * codec.pixels, width * codec.pixels
    assert facts.parameters == sum(p.numel() for p in module.parameters())
    assert facts.depth == sum(map(len, stacks))
    assert (facts.width, facts.tokens(*size)) == (seen[0][-1], seen[0][1:-1].numel())
    assert facts.codec.channels == len(x[0]) and codec.latent_frames(size[0]) == frames
    widths = {len(weight) for weight in stacks[0][0].parameters()}
    assert {facts.ffn_width, 2 * facts.ffn_width} & widths  # twice where a half is a gate


@pytest.mark.parametrize("saved", ["ltx", "skyreels-v2"], indirect=True)
def test_facts_need_no_diffusers(saved: Any) -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "from dtg_restore.engine.backbones import facts_of\n"
        f"print(facts_of({str(saved.folder)!r}).name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == saved.case.name, run.stderr


@LTX
@pytest.mark.parametrize(
    "setting", [{"offload": "block"}, {"weights": "fp8"}, {"attention": "sdpa"}]
)
def test_settings_of_the_own_engine_are_refused(saved: Any, setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="ltx supports"):
        saved.backbone(**setting)


def copied(saved: Any, folder: Path) -> Path:
    return Path(shutil.copytree(saved.folder, folder / "copy"))


def weights(folder: Path) -> Path:
    return folder / "transformer" / "diffusion_pytorch_model.safetensors"


def error_of(saved: Any, folder: Path) -> str:
    with pytest.raises(EngineError) as caught:
        saved.family.backbone(folder, RestoreConfig(), CPU, torch.float32)
    message = str(caught.value)
    assert "\n" not in message and str(folder / "transformer") in message
    return message


@LTX
def test_a_truncated_shard(saved: Any, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[: len(content) // 2])
    assert "cut short" in error_of(saved, folder)


@LTX
def test_absent_weights_and_an_absent_transformer(saved: Any, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    weights(folder).unlink()
    assert "holds no .safetensors" in error_of(saved, folder)
    shutil.rmtree(folder / "transformer")
    assert "config.json" in error_of(saved, folder)


@LTX
def test_an_index_that_names_an_absent_shard(saved: Any, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    index = {"metadata": {}, "weight_map": {"proj_in.weight": "part-2.safetensors"}}
    (folder / "transformer" / f"{weights(folder).name}.index.json").write_text(json.dumps(index))
    assert "part-2.safetensors" in error_of(saved, folder)


@LTX
def test_another_class_and_other_keys(saved: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(saved, tmp_path)
    state: dict[str, Tensor] = load_file(weights(folder))
    state["proj_inn.weight"] = state.pop("proj_in.weight")
    save_file(state, weights(folder))
    message = error_of(saved, folder)
    assert "missing proj_in.weight" in message and "unexpected proj_inn.weight" in message
    state["proj_in.weight"] = state.pop("proj_inn.weight")[:, :4].contiguous()
    save_file(state, weights(folder))
    assert "proj_in.weight" in error_of(saved, folder)
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace("LTXVideoTransformer3D", "Other"))
    assert "'OtherModel', not LTXVideoTransformer3DModel" in error_of(saved, folder)
