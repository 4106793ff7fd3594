"""`mini`: its preconditioning, its contract as a backbone, its checkpoints."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones import facts_of, load_backbone, load_codec
from dtg_restore.engine.backbones.facts import MINI
from dtg_restore.engine.backbones.mini import (
    PHASES,
    TAGS,
    MiniBackbone,
    MiniConfig,
    MiniDiT,
    load_mini,
)
from dtg_restore.engine.checkpoint import load_checkpoint, save_checkpoint
from dtg_restore.engine.codecs import patch
from dtg_restore.engine.config import DTG, RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.schedule import nodes
from dtg_restore.kernels import patch_blocks

CPU = torch.device("cpu")
TABLE = nodes(DTG(t_start=0.5, steps=5, delta0=0.2, schedule="linear"))
SHAPE = (3, 4, 16, 24)


def pixels(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed))


def direct(network: MiniDiT, x: Tensor, t: list[float], tags: list[str], phase=(0, 0, 0)) -> Tensor:
    times, index = torch.tensor(t), torch.tensor([TAGS.index(tag) for tag in tags])
    with torch.no_grad():
        return network(x, times, network.condition(times, index, phase))


def coefficients(network: MiniDiT, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in as the design states them."""
    a, sd = 1 - t, network.sd.double()
    den = a**2 * sd**2 + t**2
    return a * sd**2 / den, t * sd / den.sqrt(), 1 / den.sqrt()


@pytest.mark.parametrize("t", [0.02, 0.3, 0.9, 1.0])
def test_untrained_is_the_wiener_filter(t: float) -> None:
    torch.manual_seed(0)
    network = MiniDiT(MiniConfig(width=48, depth=1, heads=2, ffn_dim=96))
    network.mean.normal_(std=0.3)
    network.sd.uniform_(0.01, 2)
    x = pixels()
    v = direct(network, x, [t], ["clean"], PHASES[1])
    z, a = patch.encode(x.double(), PHASES[1]), 1 - t
    sd, mean = network.sd.double(), network.mean.double()
    # Per channel: the gain a sd^2 / (a^2 sd^2 + t^2) minimises E (z_0 - mean - gain (z - a mean))^2
    wiener = mean + a * sd**2 / (a**2 * sd**2 + t**2) * (z - a * mean)
    want = patch.decode((z - wiener) / t, PHASES[1])
    torch.testing.assert_close(v.double(), want, rtol=1e-4, atol=1e-4)


def test_wiener_filter_is_the_best_linear_estimate() -> None:
    """Its error on Gaussian latents is the posterior variance, and any other gain does worse."""
    torch.manual_seed(0)
    network = MiniDiT(MiniConfig(width=48, depth=1, heads=2, ffn_dim=96))
    network.sd.uniform_(0.1, 1)
    network.mean.normal_()
    t, shape = 0.3, (1, 4, 16, 16, 384)
    z0 = network.mean + network.sd * torch.randn(shape)
    z = (1 - t) * z0 + t * torch.randn(shape)
    v = patch.encode(direct(network, patch.decode(z), [t], ["null"]))
    error = (z - t * v - z0).square().mean(dim=(0, 1, 2, 3))
    sd = network.sd
    posterior = sd**2 * t**2 / ((1 - t) ** 2 * sd**2 + t**2)
    assert (error / posterior).mean().item() == pytest.approx(1, abs=0.02)
    assert (error / posterior - 1).abs().max() < 6 * (2 / 1024) ** 0.5


@pytest.mark.parametrize("t", [0.05, 0.4, 0.95])
def test_velocity_is_the_preconditioned_prediction(network: MiniDiT, t: float) -> None:
    """v = (x - x0_hat) / t with x0_hat by the formula of the design around the bare network."""
    x, times = pixels(), torch.tensor([t])
    condition = network.condition(times, torch.tensor([0]))
    z = patch.encode(x)
    c_skip, c_out, c_in = (c.float() for c in coefficients(network, t))
    centred = z - (1 - t) * network.mean
    grid = z.shape[1:4]
    f = network.tokens((c_in * centred).flatten(1, 3), grid, condition).unflatten(1, grid)
    assert f.std() > 0.1  # the network says something
    x0 = patch.decode(network.mean + c_skip * centred + c_out * f)
    got = network(x, times, condition)
    torch.testing.assert_close(got, (x - x0) / t, rtol=1e-4, atol=2e-4)


def test_velocity_at_zero_is_finite_and_the_limit(network: MiniDiT) -> None:
    at_zero = direct(network, pixels(), [0.0], ["clean"])
    assert at_zero.isfinite().all()
    near = direct(network, pixels(), [1e-7], ["clean"])
    torch.testing.assert_close(at_zero, near, rtol=1e-3, atol=1e-3)


def test_every_input_matters(network: MiniDiT) -> None:
    base = direct(network, pixels(), [0.3], ["clean"])
    for changed in (
        direct(network, pixels(seed=1), [0.3], ["clean"]),
        direct(network, pixels(), [0.35], ["clean"]),
        direct(network, pixels(), [0.3], ["null"]),
        direct(network, pixels(), [0.3], ["degraded"]),
        direct(network, pixels(), [0.3], ["clean"], (1, 4, 4)),
    ):
        assert (changed - base).abs().max() > 1e-3


def test_batch_of_two_times_is_two_single_calls(network: MiniDiT) -> None:
    x = pixels(2)
    both = direct(network, x, [0.5, 0.2], ["clean", "null"])
    torch.testing.assert_close(
        both[:1], direct(network, x[:1], [0.5], ["clean"]), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        both[1:], direct(network, x[1:], [0.2], ["null"]), rtol=1e-5, atol=1e-5
    )


def test_results_are_memory_of_the_caller(backbone: MiniBackbone) -> None:
    context, x = backbone.prepare("clean", "null", TABLE), pixels()
    v_cond = backbone.velocity(x, torch.tensor([TABLE[0].t]), context.at(0, ["cond"], 1))
    kept, before = v_cond.clone(), x.clone()
    v_uncond = backbone.velocity(x, torch.tensor([TABLE[0].tau]), context.at(0, ["uncond"], 1))
    assert v_cond.untyped_storage().data_ptr() != v_uncond.untyped_storage().data_ptr()
    assert v_cond.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert torch.equal(v_cond, kept) and torch.equal(x, before)
    assert (v_cond - v_uncond).abs().max() > 1e-3
    assert v_cond.shape == x.shape and v_cond.dtype == torch.float32


@pytest.mark.parametrize("index", range(len(TABLE)))
def test_context_is_the_direct_condition(backbone: MiniBackbone, index: int) -> None:
    context, node = backbone.prepare("degraded", "null", TABLE), TABLE[index]
    got = context.at(index, ["cond", "uncond"], 2)
    times = torch.tensor([node.t, node.t, node.tau, node.tau])
    tags = torch.tensor([1, 1, 2, 2])
    want = backbone.network.condition(times, tags, PHASES[index % len(PHASES)])
    torch.testing.assert_close(got.modulation, want.modulation, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.final, want.final, rtol=1e-5, atol=1e-5)
    for (k, v), (k_want, v_want) in zip(got.keys_values, want.keys_values, strict=True):
        torch.testing.assert_close(k.repeat_interleave(2, 0), k_want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(v.repeat_interleave(2, 0), v_want, rtol=1e-5, atol=1e-5)
    assert got.phase == want.phase
    x = pixels(4)
    torch.testing.assert_close(
        backbone.velocity(x, times, got), backbone.velocity(x, times, want), rtol=1e-4, atol=1e-4
    )


def test_phases_move_every_edge_within_two_steps() -> None:
    """A block edge must not stay where it is."""
    for here, there in itertools.pairwise([*PHASES, PHASES[0]]):
        assert here != there
    for axis, block in enumerate(patch.BLOCK):
        places = {phase[axis] for phase in PHASES}
        assert places == {0, block // 2}


@pytest.mark.parametrize(("prompt", "negative"), [("sharp", "null"), ("clean", "blurry")])
def test_unknown_tag(backbone: MiniBackbone, prompt: str, negative: str) -> None:
    with pytest.raises(ConfigError, match=r"clean, degraded, null.*'(sharp|blurry)'"):
        backbone.prepare(prompt, negative, TABLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_is_near(network: MiniDiT, dtype: torch.dtype) -> None:
    want = direct(network, pixels(), [0.4], ["clean"])
    backbone = MiniBackbone(network, CPU, dtype)
    table = nodes(DTG(t_start=0.4, steps=1))
    condition = backbone.prepare("clean", "null", table).at(0, ["cond"], 1)
    got = backbone.velocity(pixels(), torch.tensor([0.4]), condition)
    assert got.dtype == torch.float32
    assert (got - want).std() < 0.02 * want.std()
    assert not torch.equal(got, want)


def test_inference_leaves_training_possible(network: MiniDiT) -> None:
    """The recipe measures with the pipeline between two steps of training."""
    patch_blocks._made.cache_clear()
    backbone = MiniBackbone(network, CPU, torch.float32)
    condition = backbone.prepare("clean", "null", TABLE).at(0, ["cond"], 1)
    backbone.velocity(pixels(), torch.tensor([0.5]), condition)
    network.requires_grad_(True)
    t = torch.tensor([0.5])
    network(pixels(), t, network.condition(t, torch.tensor([0]))).square().mean().backward()
    assert network.patch_embedding.weight.grad.abs().sum() > 0


# -- loading -------------------------------------------------------------------------------------


def test_checkpoint_round_trip(network: MiniDiT, weights: Path) -> None:
    loaded = load_mini(weights, CPU, torch.float32)
    assert loaded.network.config == network.config
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value.half().float()), key
    assert load_backbone(named(str(weights)), CPU, torch.float32).network.config == network.config


def test_missing_unexpected_and_misshapen_keys_are_named(network: MiniDiT, tmp_path: Path) -> None:
    path, state = tmp_path / "bad.safetensors", network.state_dict()
    del state["proj_out.bias"]
    state["proj_in.bias"] = torch.zeros(3)
    state["mean"] = torch.zeros(383)
    save_checkpoint(path, state, network.describe(), {})
    with pytest.raises(EngineError) as caught:
        load_mini(path, CPU, torch.float32)
    message = str(caught.value)
    assert "bad.safetensors" in message
    assert "missing proj_out.bias" in message
    assert "unexpected proj_in.bias" in message
    assert "mean has shape (383,), not (384,)" in message


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "mini", "scale": 2},  # an SR checkpoint
        {"width": "wide"},
        {"width": -48},
        {"depth": 0},
        {"heads": 0},
        {"heads": 5},  # of a fractional width
        {"heads": 16},  # of width 3: pairs cannot be rotated
        [1, 2],
    ],
)
def test_configuration_of_another_class(
    network: MiniDiT, tmp_path: Path, config: dict[str, Any] | list[int]
) -> None:
    """The state is the network's own: what does not show in a shape must be refused as well."""
    if isinstance(config, dict) and "kind" not in config:
        config = network.describe() | config
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, network.state_dict(), config, {})
    with pytest.raises(EngineError, match=r"other\.safetensors is not of the mini class"):
        load_mini(path, CPU, torch.float32)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_damaged_file(weights: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"cut\.safetensors"):
        load_mini(path, CPU, torch.float32)


def test_absent_file_and_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="absent"):
        load_backbone(named(tmp_path / "absent.safetensors"), CPU, torch.float32)
    with pytest.raises(ConfigError, match=r"'mimi'.*did you mean 'mini'"):
        load_backbone(named("mimi"), CPU, torch.float32)
    with pytest.raises(EngineError, match="no folder of a model"):
        load_backbone(named(tmp_path), CPU, torch.float32)
    with pytest.raises(ConfigError, match="is no backbone"):
        load_backbone(named(__file__), CPU, torch.float32)
    with pytest.raises(ConfigError, match="vae is 'tiny': mini works on pixels"):
        load_codec(RestoreConfig(vae="tiny"), CPU, torch.float32)


def named(backbone: str | Path) -> RestoreConfig:
    return RestoreConfig(backbone=str(backbone))


def test_facts_of_other_sizes_are_those_of_the_file(network: MiniDiT, weights: Path) -> None:
    facts = facts_of(str(weights))
    assert facts.parameters == sum(p.numel() for p in network.parameters()) != MINI.parameters
    assert (facts.width, facts.depth, facts.ffn_width) == (48, 1, 96)


def test_facts_are_those_of_the_code() -> None:
    facts = facts_of("mini")
    assert facts == MINI
    network = MiniDiT(MiniConfig())
    assert facts.parameters == sum(p.numel() for p in network.parameters())
    assert facts.patch == patch.BLOCK
    assert (facts.width, facts.depth) == (network.config.width, network.config.depth)
    assert facts.ffn_width == network.config.ffn_dim
    assert facts.context_tokens == network.config.num_condition_tokens
    assert {facts.prompt, facts.negative_prompt} <= set(TAGS)
    assert all(facts.multiple_of[i > 0] % patch.BLOCK[i] == 0 for i in range(3))


def test_load_checkpoint_is_fp32_on_the_cpu(weights: Path) -> None:
    config, state = load_checkpoint(weights)
    assert config["width"] == 48
    assert {value.dtype for value in state.values()} == {torch.float32}
