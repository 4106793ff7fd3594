"""Whole Wan models in C++ by ONNX Runtime, whose headers no Python package has.

DTG_ORT_ROOT names a folder of it with include/ and lib/.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dtg_restore.engine.codecs.tiny import TinyVae
from dtg_restore.engine.restorer import Restorer

pytestmark = pytest.mark.skipif(
    not os.environ.get("DTG_ORT_ROOT"), reason="DTG_ORT_ROOT names no folder of ONNX Runtime"
)
TEXT_DIM = 20


def randomise(module: torch.nn.Module, seed: int, std: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=std, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Wan pipeline in a folder, with a tiny codec and prompts."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("model")
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=24,
        text_dim=TEXT_DIM,
        freq_dim=32,
        num_layers=1,
        ffn_dim=40,
    )
    randomise(transformer, 0, 0.15)
    transformer.save_pretrained(folder / "transformer")
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    randomise(vae, 1, 0.2)
    vae.save_pretrained(folder / "vae")
    tiny = TinyVae(16, 1)
    randomise(tiny, 3, 0.04)
    save_file(tiny.state_dict(), folder / "taew2_1.safetensors")
    index = {"_class_name": "WanPipeline", "boundary_ratio": None, "transformer_2": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    generator = torch.Generator().manual_seed(2)
    names = ("prompt_embeds", "negative_prompt_embeds")
    embeds = {name: torch.randn(1, 6, TEXT_DIM, generator=generator) for name in names}
    save_file(embeds, folder / "prompts.safetensors")
    return folder


@pytest.mark.parametrize(
    ("vae", "frames"), [("auto", (14, 37, 45)), ("auto", (9, 32, 32)), ("tiny", (14, 32, 27))]
)
def test_wan_as_in_python(
    built: Path,
    model: Path,
    clip: Callable[..., Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vae: str,
    frames: tuple[int, int, int],
) -> None:
    from dtg_restore.export.build import build_bundle
    from dtg_restore.export.request import ExportRequest

    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    request = ExportRequest(
        backbone=str(model),
        vae=vae,
        sr="none",
        tile=((32, 32),),
        chunk=9,
        batch=(1,),
        prompt_embeds=str(model / "prompts.safetensors"),
    )
    bundle = build_bundle(request, target=tmp_path / "bundle").folder
    given, source, target = clip(*frames), tmp_path / "in", tmp_path / "out"
    source.write_bytes(given.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    count, height, width = frames
    command = [built / "restore_raw", bundle, source, target, str(width), str(height)]
    subprocess.run([*command, "steps=2", "threads=1"], check=True, timeout=300)
    got = np.fromfile(target, np.float32).reshape(count, height, width, 3)
    expected = Restorer.open(bundle, sr="none", steps=2, branches="batched").restore(given)
    torch.testing.assert_close(
        torch.from_numpy(got).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-6
    )
