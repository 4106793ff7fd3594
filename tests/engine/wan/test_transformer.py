"""The Wan transformer against diffusers' own, and its contract as a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dtg_restore.engine.backbones import load_backbone
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.schedule import Node

CPU = torch.device("cpu")
TEXT_DIM = 20
TABLE = [
    Node(0.93, 0.7, 1.5, 1.5, -0.5),
    Node(0.41, 0.2505, 1.3, 1.3, -0.3),
    Node(0.0, 0.0, 1.0, 1.0, 0.0),
]
Write = Callable[..., Any]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompts(folder: Path, lengths: tuple[int, int] = (5, 5)) -> str:
    names = ("prompt_embeds", "negative_prompt_embeds")
    embeds = {
        n: rand(1, c, TEXT_DIM, seed=c + i)
        for i, (n, c) in enumerate(zip(names, lengths, strict=True))
    }
    save_file(embeds, folder.parent / "prompts.safetensors")
    return str(folder.parent / "prompts.safetensors")


def load(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    place = settings.pop("prompt_embeds", None) or prompts(folder)
    config = RestoreConfig(backbone=str(folder), prompt_embeds=place, **settings)
    return load_backbone(config, CPU, dtype)


def both(backbone: Any, x: Tensor, index: int = 0, repeat: int = 1) -> Tensor:
    context, node = backbone.prepare("", "", TABLE), TABLE[index]
    t = torch.tensor([node.t, node.tau]).repeat_interleave(repeat)
    with backbone.on_device():
        return backbone.velocity(x, t, context.at(index, ["cond", "uncond"], repeat))


def oracle(module: Any, folder: Path, x: Tensor, index: int) -> Tensor:
    found = load_file(folder.parent / "prompts.safetensors")
    text = torch.cat([found["prompt_embeds"], found["negative_prompt_embeds"]])
    t = torch.tensor([TABLE[index].t, TABLE[index].tau]) * 1000
    rows = len(x) // 2
    text, t = text.repeat_interleave(rows, 0), t.repeat_interleave(rows)
    return module(x, t, text).sample


def assert_close(got: Tensor, want: Tensor, bound: float) -> None:
    error = ((got - want).abs().max() / want.abs().max()).item()
    assert error <= bound, f"{error:.2e} of the scale"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "transformer"


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("heads", "head_dim", "size"),
    [(2, 24, (3, 6, 10)), (3, 16, (1, 2, 2)), (1, 12, (2, 10, 6)), (4, 32, (5, 4, 2))],
)
def test_equals_diffusers(
    write_transformer: Write, folder: Path, heads: int, head_dim: int, size: Any, index: int
) -> None:
    """Both branches in one batch, each at its own time, odd numbers of tokens."""
    module = write_transformer(folder, heads, head_dim)
    x = rand(2, 16, *size)
    got = both(load(folder), x, index)
    want = oracle(module, folder, x, index)
    assert got.dtype == torch.float32 and got.shape == x.shape
    assert (want[0] - want[1]).abs().max() > 0.1 * want.abs().max()  # the branches differ
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"in_channels": 48, "out_channels": 48}, {"patch_size": (1, 1, 2)}, {"num_layers": 3}],
    ids=["wan 2.2 latents", "another patch", "three layers"],
)
def test_sizes_are_read_off_the_weights(
    write_transformer: Write, folder: Path, settings: dict[str, Any]
) -> None:
    module = write_transformer(folder, **settings)
    x = rand(2, settings.get("in_channels", 16), 2, 4, 6)
    assert_close(both(load(folder), x), oracle(module, folder, x, 0), 1e-4)


def test_several_tiles_share_the_keys_of_their_branch(
    write_transformer: Write, folder: Path
) -> None:
    module = write_transformer(folder)
    x = rand(6, 16, 2, 4, 6)
    assert_close(both(load(folder), x, repeat=3), oracle(module, folder, x, 0), 1e-4)


def test_batch_of_two_equals_two_calls(write_transformer: Write, folder: Path) -> None:
    write_transformer(folder)
    backbone, x = load(folder), rand(2, 16, 3, 4, 6)
    together = both(backbone, x)
    context = backbone.prepare("", "", TABLE)
    for row, (branch, t) in enumerate((("cond", TABLE[0].t), ("uncond", TABLE[0].tau))):
        alone = backbone.velocity(x[row : row + 1], torch.tensor([t]), context.at(0, [branch], 1))
        assert_close(together[row : row + 1], alone, 1e-5)


@pytest.mark.parametrize("offload", ["none", "block", "model"])
def test_results_are_memory_of_the_caller(
    write_transformer: Write, folder: Path, offload: str
) -> None:
    write_transformer(folder)
    backbone, x = load(folder, offload=offload), rand(1, 16, 2, 4, 6)
    context, t = backbone.prepare("", "", TABLE), torch.tensor([0.5])
    with backbone.on_device():
        v_cond = backbone.velocity(x, t, context.at(0, ["cond"], 1))
        kept = v_cond.clone()
        v_uncond = backbone.velocity(x, t, context.at(0, ["uncond"], 1))
    assert v_cond.untyped_storage().data_ptr() != v_uncond.untyped_storage().data_ptr()
    assert torch.equal(v_cond, kept) and not torch.allclose(v_cond, v_uncond)


@pytest.mark.parametrize("offload", ["block", "model"])
def test_offload_changes_no_bit(write_transformer: Write, folder: Path, offload: str) -> None:
    write_transformer(folder, num_layers=3)
    x = rand(2, 16, 2, 4, 6)
    waiting = load(folder, offload=offload)
    assert torch.equal(both(waiting, x), both(load(folder), x))
    assert torch.equal(both(waiting, x, 1), both(load(folder), x, 1))  # a second run


@pytest.mark.parametrize(("weights", "low", "high"), [("int8", 1e-4, 0.02), ("fp8", 5e-4, 0.05)])
def test_quantised_weights_cost_a_little(
    write_transformer: Write, folder: Path, weights: str, low: float, high: float
) -> None:
    write_transformer(folder)
    x = rand(2, 16, 2, 4, 6)
    exact, got = both(load(folder), x), both(load(folder, weights=weights), x)
    error = ((got - exact).norm() / exact.norm()).item()
    assert low < error < high


def test_quantised_weights_wait_on_the_host_too(write_transformer: Write, folder: Path) -> None:
    write_transformer(folder)
    x = rand(2, 16, 2, 4, 6)
    here, there = (both(load(folder, weights="int8", offload=o), x) for o in ("none", "block"))
    assert torch.equal(here, there)


def test_low_precision_keeps_what_is_sensitive(write_transformer: Write, folder: Path) -> None:
    module = write_transformer(folder)
    backbone, x = load(folder, torch.bfloat16), rand(2, 16, 2, 4, 6)
    got = both(backbone, x)
    assert got.dtype == torch.float32
    assert_close(got, oracle(module, folder, x, 0), 0.05)
    network = backbone._networks[0]
    assert network.blocks[0].scale_shift_table.dtype == torch.float32
    assert network.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert network.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16


def test_shorter_prompt_is_filled_up_with_zeros(write_transformer: Write, folder: Path) -> None:
    module = write_transformer(folder)
    place = prompts(folder, (5, 2))
    x, t = rand(2, 16, 2, 4, 6), torch.tensor([TABLE[0].t, TABLE[0].tau]) * 1000
    got = both(load(folder, prompt_embeds=place), x)
    text = torch.zeros(2, 5, TEXT_DIM)
    text[0], text[1, :2] = rand(1, 5, TEXT_DIM, seed=5), rand(1, 2, TEXT_DIM, seed=3)
    assert_close(got, module(x, t, text).sample, 1e-4)
