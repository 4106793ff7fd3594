"""A bundle's engines against the networks that they were made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones import load_backbone
from dtg_restore.engine.backbones.base import Bucket
from dtg_restore.engine.backbones.facts import MINI
from dtg_restore.engine.config import DTG, RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes import on_runtime
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.schedule import nodes

SMALL: dict[str, Any] = {"device": "cpu", "overlap": 2, "tile_overlap": 8, "steps": 2}
EAGER: dict[str, Any] = {"sr": "none", "chunk": 4, "tile": (24, 16)}
Clip = Callable[..., Tensor]
Change = Callable[..., Path]


def psnr(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return -10 * (a - b).double().square().mean().log10().item()


def open_small(bundle: Path, **settings: Any) -> Restorer:
    return Restorer.open(bundle, **(SMALL | {"sr": "none"} | settings))


def load_eager(weights: Path, **settings: Any) -> Restorer:
    return Restorer.load(backbone=str(weights), **(SMALL | EAGER | settings))


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((4, 16, 24), {}),  # one tile
        ((9, 37, 45), {}),  # odd sizes, many tiles, a last chunk that is filled up
        ((6, 32, 40), {"branches": "sequential", "tile_batch": 3}),  # filled up to 4
        ((6, 32, 40), {"branches": "batched", "tile_batch": 3}),  # 6 samples: 4 and 2
        ((6, 32, 40), {"steps": 4, "schedule": "exponential", "elide_tol": 0.5}),
        ((6, 32, 40), {"solver": "heun", "space": "velocity", "guidance": "cfg"}),
        ((5, 16, 16), {"tile": (16, 16), "chunk": 8}),  # the other shape
    ],
)
def test_restores_as_the_network_does(
    bundle: Path, weights: Path, clip: Clip, size: tuple[int, int, int], settings: dict[str, Any]
) -> None:
    frames = clip(*size)
    ours = open_small(bundle, **settings)
    expected = load_eager(weights, full_chunks=True, **settings).restore(frames)
    assert psnr(ours.restore(frames), expected) > 100


def test_a_frame_smaller_than_the_tile_is_continued(bundle: Path, clip: Clip) -> None:
    frames = clip(4, 9, 13)
    restorer = open_small(bundle)
    plan = restorer.plan(9, 13)
    assert plan is not None and plan.padded_size == (16, 24) and len(plan.tiles) == 1
    whole = torch.nn.functional.pad(frames, (0, 11, 0, 7), mode="reflect")
    assert torch.equal(restorer.restore(frames), restorer.restore(whole)[:, :, :9, :13])


def test_a_call_leaves_results_and_inputs_alone(bundle: Path) -> None:
    backbone = load_backbone(
        RestoreConfig(backbone=str(bundle)), torch.device("cpu"), torch.float32
    )
    context = backbone.prepare("clean", "null", nodes(DTG(steps=4)))
    x, t = torch.randn(2, 3, 4, 16, 24), torch.tensor([0.5, 0.4])
    before = x.clone()
    first = backbone.velocity(x, t, context.at(1, ("cond", "uncond"), 1))
    kept = first.clone()
    second = backbone.velocity(x, t, context.at(2, ("cond", "uncond"), 1))
    assert torch.equal(first, kept) and torch.equal(x, before)
    assert not torch.equal(first, second)
    assert first.dtype == torch.float32 and not torch.equal(first[0], first[1])


def test_keys_and_values_are_laid_out_once(bundle: Path) -> None:
    backbone = load_backbone(
        RestoreConfig(backbone=str(bundle)), torch.device("cpu"), torch.float32
    )
    context = backbone.prepare("clean", "null", nodes(DTG(steps=4)))
    (one,), (other,) = (context.at(index, ("cond", "uncond"), 2) for index in (0, 3))
    assert one.rows == (0, 0, 1, 1) and one.phase != other.phase
    for a, b in zip(one.text.of(one.rows), other.text.of(other.rows), strict=True):
        assert a.data_ptr() == b.data_ptr() and a.shape[1] == 4


def test_its_calls_can_be_recorded(bundle: Path, clip: Clip, recorder: Any) -> None:
    restorer = open_small(bundle, steps=4, branches="batched", chunk=8)
    assert restorer.backbone is not None
    frames = clip(14, 16, 32)
    expected = restorer.restore(frames)
    graph = GraphBackbone(restorer.backbone, lambda: recorder)
    recorded = Restorer(restorer.config, graph, restorer.codec, None, restorer.device)
    assert torch.equal(recorded.restore(frames), expected)
    assert recorder.records and recorder.replays


def test_tags_are_those_of_the_model(bundle: Path, clip: Clip) -> None:
    with pytest.raises(ConfigError, match="one of clean, degraded, null, not 'nice'"):
        open_small(bundle, prompt="nice").restore(clip(4, 16, 24))
    one, other = (
        open_small(bundle, prompt=prompt).restore(clip(4, 16, 24)) for prompt in ("clean", "null")
    )
    assert not torch.equal(one, other)


@pytest.mark.parametrize("shared", [False, True])
def test_two_runs_in_threads(bundle: Path, clip: Clip, shared: bool) -> None:
    clips = [clip(6, 20, 30, seed) for seed in range(2)]
    first = open_small(bundle)
    restorers = [first, first if shared else open_small(bundle)]
    expected = [first.restore(frames) for frames in clips]
    results: dict[int, Any] = {}

    def work(i: int) -> None:
        results[i] = [restorers[i].restore(clips[i]) for _ in range(2)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, expected[i]) for i in range(2) for result in results[i])


def test_report_names_bundle_and_runtime(
    bundle: Path, weights: Path, clip: Clip, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    source = pictures(clip(5, 16, 24))
    ours = open_small(bundle).restore_file(source, tmp_path / "ours")
    theirs = load_eager(weights).restore_file(source, tmp_path / "theirs")
    assert ours["runtime"]["name"] == "ort" and theirs["runtime"]["name"] == "eager"
    assert ours["weights"]["backbone"]["bundle"] == "0" * 64
    assert ours["weights"]["backbone"]["sha256"] == theirs["weights"]["backbone"]["sha256"]
    assert ours["plan"]["bucket"]["width"] == 24 and theirs["plan"]["bucket"] is None
    other = open_small(bundle, chunk=6).restore_file(source, tmp_path / "other")
    assert other["runtime"]["name"] == "eager" and other["plan"]["bucket"] is None


@pytest.mark.parametrize(
    ("compiled_for", "runtime", "recorded"),
    [
        ("tensorrt", "auto", True),
        ("tensorrt", "tensorrt", False),
        ("ort", "auto", False),
        ("aot", "auto", False),
    ],
)
def test_calls_of_tensorrt_are_recorded(compiled_for: str, runtime: str, recorded: bool) -> None:
    class OnGpu:
        facts = replace(MINI, buckets=(Bucket(4, 16, 24, (2,)),), runtime=compiled_for)
        device, attend = torch.device("cuda:0"), None

    backbone: Any = OnGpu()
    found = on_runtime(RestoreConfig(runtime=runtime), backbone)
    assert isinstance(found, GraphBackbone) == recorded and (recorded or found is backbone)
