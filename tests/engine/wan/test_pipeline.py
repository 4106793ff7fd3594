"""The whole way of a chunk against diffusers' video-to-video pipeline, and through the commands."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.schedule import nodes
from dtg_restore.kernels import gaussian_noise

diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle, and not installed")

Clip = Callable[..., Tensor]
SIZE = (32, 48)
STEPS, T_START, SCALE = 4, 0.6, 3.0


def load(model: Path, **settings: Any) -> Restorer:
    small: dict[str, Any] = {
        "backbone": str(model),
        "prompt_embeds": str(model / "prompts.safetensors"),
        "sr": "none",
        "device": "cpu",
        "steps": STEPS,
        "t_start": T_START,
    }
    return Restorer.load(**(small | settings))


def smooth(clip: Clip, frames: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Noise, blurred: what a codec can carry."""
    coarse = clip(frames, size[0] // 8, size[1] // 8)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item() + 1e-20)


def diffusers_result(
    model: Path, frames: Tensor, times: list[float], monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """The pipeline's own call, with our times and our noise."""
    from diffusers.pipelines.wan import pipeline_wan_video2video as module

    count = (len(frames) - 1) // 4 + 1
    noise = gaussian_noise(0, 0, count, 16, SIZE[0] // 8, SIZE[1] // 8, device="cpu")[None]
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise.reshape(shape).clone())
    pipeline = diffusers.WanVideoToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=diffusers.WanTransformer3DModel.from_pretrained(model / "transformer"),
        vae=diffusers.AutoencoderKLWan.from_pretrained(model / "vae"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    embeds = load_file(model / "prompts.safetensors")
    result = pipeline(
        video=frames[None],
        height=SIZE[0],
        width=SIZE[1],
        timesteps=[1000 * t for t in times[:-1]],
        strength=1.0,
        guidance_scale=SCALE,
        prompt_embeds=embeds["prompt_embeds"],
        negative_prompt_embeds=embeds["negative_prompt_embeds"],
        output_type="pt",
    )
    return result.frames[0]


@pytest.mark.parametrize("frames", [9, 5])
def test_equals_the_video_to_video_pipeline(
    model: Path, clip: Clip, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = smooth(clip, frames)
    restorer = load(model, guidance="cfg", alpha0=SCALE)
    got = restorer.restore(source)
    times = [node.t for node in nodes(restorer.config.dtg(restorer.backbone.facts.defaults))]
    want = diffusers_result(model, source, times, monkeypatch)
    assert isinstance(got, Tensor) and got.shape == want.shape
    assert psnr(want, source) < 40 and want.std() > 0.01  # the pipeline did something
    assert psnr(got, want) >= 60
    plain = load(model, guidance="none").restore(source)
    assert psnr(plain, want) < 60  # and the guidance shows


def test_lookahead_differs_from_plain_guidance(model: Path, clip: Clip) -> None:
    source = smooth(clip, 5)
    plain = load(model, guidance="cfg", alpha0=SCALE).restore(source)
    ahead = load(model, alpha0=SCALE, schedule="constant", delta0=0.2).restore(source)
    assert psnr(plain, ahead) < 60


@pytest.mark.parametrize(
    ("frames", "size"), [(1, (32, 48)), (7, (33, 50)), (4, (16, 16)), (23, (40, 24))]
)
def test_any_number_and_size_of_frames(
    model: Path, clip: Clip, frames: int, size: tuple[int, int]
) -> None:
    restorer = load(model, steps=1, chunk=13, overlap=5, tile=(32, 32), tile_overlap=16)
    source = (smooth(clip, frames, (40, 56))[..., : size[0], : size[1]] * 255).byte()
    array = np.ascontiguousarray(source.permute(0, 2, 3, 1).numpy())
    assert restorer.restore(array).shape == array.shape


def test_split_is_unsplit(model: Path, clip: Clip, tmp_path: Path, pictures: Any) -> None:
    source = pictures(smooth(clip, 17))
    restorer = load(model, steps=1, chunk=13, overlap=5, tile=(32, 32), tile_overlap=16)
    restorer.restore_file(source, tmp_path / "whole")
    for first, last in ((0, 6), (7, 12), (13, 16)):
        restorer.restore_file(source, tmp_path / "parts", frames=(first, last), overwrite=True)
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name


def test_overlapping_chunks_share_their_noise(model: Path) -> None:
    """Neighbouring chunks lie on one grid of latent frames."""
    plan = load(model, chunk=10, overlap=2).plan(*SIZE)
    assert plan is not None
    assert (plan.grid.length, plan.grid.overlap, plan.grid.stride % 4) == (13, 5, 0)


def test_offload_and_report(model: Path, clip: Clip, pictures: Any, tmp_path: Path) -> None:
    source = pictures(smooth(clip, 5))
    report = load(model, offload="block", attention="sdpa").restore_file(source, tmp_path / "a")
    load(model).restore_file(source, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert report["evaluations"] == {"cond": STEPS, "uncond": STEPS}
    assert report["attention"] == {"asked": "sdpa", "used": ["sdpa"], "error": None}
    assert report["weights"]["backbone"]["path"] == str(model)
