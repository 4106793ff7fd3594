"""Every family's velocity against its own pipeline in diffusers, called as a user calls it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.plan import make_plan
from dtg_restore.engine.refine import Refiner
from dtg_restore.engine.schedule import Node
from dtg_restore.engine.text.embeds import write_embeds
from dtg_restore.engine.types import Chunk

CPU = torch.device("cpu")
TIMES = (0.7, 0.45)


def node(t: float, tau: float) -> Node:
    return Node(t, tau, 2.0, 2.0, -1.0)


def prepared(saved: Any, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The backbone and the context of two different prompts."""
    file = folder / f"{dtype}.safetensors"
    write_embeds(file, saved.case.embeds(0), saved.case.embeds(1))
    backbone = saved.backbone(dtype, prompt_embeds=str(file))
    return backbone, backbone.prepare("a", "b", [node(*TIMES)])


def at(backbone: Any, context: Any, x: Tensor, t: float, branch: str) -> Tensor:
    return backbone.velocity(x, torch.tensor([t]), context.at(0, [branch], 1))


def test_a_whole_run_is_that_of_the_pipeline(saved: Any, tmp_path: Path) -> None:
    check_run(saved, tmp_path, saved.case.noise(0))


@pytest.mark.parametrize("saved", ["kandinsky5"], indirect=True)
def test_positions_of_frames_near_480_pixels(saved: Any, tmp_path: Path) -> None:
    x = torch.randn(1, 4, 1, 60, 60, generator=torch.Generator().manual_seed(0))
    check_run(saved, tmp_path, x)


def check_run(saved: Any, folder: Path, x: Tensor) -> None:
    """Our Euler steps through the pipeline's times against the pipeline's own run."""
    backbone, context = prepared(saved, folder)
    with torch.no_grad():
        expected, times = saved.case.call(saved.pipeline, x.clone(), saved.case.embeds(0), "latent")
    assert times[0] > 0.98 and len(times) > 3
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * at(backbone, context, x, t, "cond")
    scale = expected.abs().max()
    assert scale > 0.5
    assert (x - expected).abs().max() <= 1e-4 * scale


def test_a_batch_is_its_samples_and_a_result_is_the_callers(saved: Any, tmp_path: Path) -> None:
    backbone, context = prepared(saved, tmp_path)
    x = saved.case.noise(1, batch=2)
    together = backbone.velocity(x, torch.tensor(TIMES), context.at(0, ["cond", "uncond"], 1))
    kept = together.clone()
    one = at(backbone, context, x[:1], TIMES[0], "cond")
    two = at(backbone, context, x[1:], TIMES[1], "uncond")
    assert together.dtype == torch.float32 and together.shape == x.shape
    assert (together - torch.cat([one, two])).abs().max() <= saved.case.same * one.abs().max()
    assert torch.equal(together, kept)
    other_text = at(backbone, context, x[:1], TIMES[0], "uncond")
    other_time = at(backbone, context, x[:1], TIMES[1], "cond")
    for other in (other_text, other_time):
        assert (other - one).abs().max() > 10 * saved.case.same * one.abs().max()


def test_half_precision_runs_and_stays_near(saved: Any, tmp_path: Path) -> None:
    x = saved.case.noise(2)
    exact, near = (
        at(*prepared(saved, tmp_path, dtype), x, TIMES[0], "cond")
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert near.dtype == torch.float32
    assert (near - exact).norm() <= 0.1 * exact.norm()


@pytest.mark.parametrize("lengthen", [False, True])
@pytest.mark.parametrize("saved", ["kandinsky5", "mochi"], indirect=True)
def test_two_samples_of_each_branch(saved: Any, tmp_path: Path, lengthen: bool) -> None:
    """Of texts of one length, which go together, and of two, which cannot."""
    short, long = saved.case.embeds(0), saved.case.embeds(1)
    if lengthen:
        long = {
            n: torch.cat([e, e], 1) if e.ndim == 3 or "mask" in n else e for n, e in long.items()
        }
    write_embeds(tmp_path / "prompts.safetensors", short, long)
    backbone = saved.backbone(prompt_embeds=str(tmp_path / "prompts.safetensors"))
    context = backbone.prepare("a", "b", [node(*TIMES)])
    x = saved.case.noise(1, batch=4)
    t = torch.tensor(TIMES).repeat_interleave(2)
    together = backbone.velocity(x, t, context.at(0, ["cond", "uncond"], 2))
    for i, branch in enumerate(["cond", "cond", "uncond", "uncond"]):
        one = at(backbone, context, x[i : i + 1], float(t[i]), branch)
        assert (together[i : i + 1] - one).abs().max() <= saved.case.same * one.abs().max()


@pytest.mark.parametrize("saved", ["cogvideox-1.5"], indirect=True)
def test_steps_of_cogvideox_and_an_odd_number_of_frames(saved: Any, tmp_path: Path) -> None:
    backbone, context = prepared(saved, tmp_path)
    abar = saved.pipeline.scheduler.alphas_cumprod
    a, s = abar.sqrt(), (1 - abar).sqrt()
    steps = torch.arange(len(abar))
    found = backbone.step_of((s / (a + s)).float())
    assert (found - steps).abs().max() < 1e-2
    assert backbone.step_of(torch.tensor([0.0, 1.0])).tolist() == [0, len(abar) - 1]
    x = saved.case.noise(3)[:, :, 1:]
    whole = torch.cat([x[:, :, :1], x], 2)
    odd, even = (at(backbone, context, y, TIMES[0], "cond") for y in (x, whole))
    assert torch.equal(odd, even[:, :, 1:])


@pytest.mark.parametrize("saved", ["ltx", "cosmos-2.5", "cogvideox"], indirect=True)
def test_a_chunk_is_refined(saved: Any, tmp_path: Path) -> None:
    write_embeds(tmp_path / "p.safetensors", saved.case.embeds(0), saved.case.embeds(1))
    config = RestoreConfig(
        backbone=str(saved.folder),
        prompt_embeds=str(tmp_path / "p.safetensors"),
        tile=(32, 32),
        tile_overlap=16,
        steps=1,
    )
    backbone = saved.backbone(prompt_embeds=config.prompt_embeds)
    codec = saved.family.codec(saved.folder, config, CPU, torch.float32)
    frames = torch.rand(7, 3, 30, 50, generator=torch.Generator().manual_seed(0))
    refine = Refiner(backbone, codec, config, make_plan(config, 30, 50))
    result = refine(frames, Chunk(0, 0, 7))
    assert result.shape == frames.shape and result.isfinite().all() and result.std() > 0.01


def test_weights_that_wait_on_the_host(saved: Any, tmp_path: Path) -> None:
    write_embeds(tmp_path / "p.safetensors", saved.case.embeds(0), saved.case.embeds(1))
    file, x = str(tmp_path / "p.safetensors"), saved.case.noise(0)
    results = []
    for offload in ("none", "model"):
        backbone = saved.backbone(prompt_embeds=file, offload=offload)
        waiting = [parameter.data_ptr() for parameter in backbone.transformer.parameters()]
        with backbone.on_device():
            here = [parameter.data_ptr() for parameter in backbone.transformer.parameters()]
        assert (here == waiting) == (offload == "none")
        context = backbone.prepare("a", "b", [node(*TIMES)])
        results.append(at(backbone, context, x, TIMES[0], "cond"))
    one, two = results  # memory lies elsewhere, which some matrix products notice
    assert (one - two).abs().max() <= saved.case.same * one.abs().max()
