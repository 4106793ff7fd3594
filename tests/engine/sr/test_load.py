import pytest
import torch

from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.sr import SR, load_sr
from dtg_restore.engine.sr.mini import MiniSR

from .conftest import TINY, random_net


@pytest.mark.parametrize("entry", list(SR), ids=lambda entry: entry.name)
def test_facts_of_the_registry_are_those_of_the_weights(entry):
    sr = load_sr(entry.name)
    assert sr.facts == entry.facts
    assert sr.facts.parameters == sum(p.numel() for p in sr.module.parameters())
    assert sr.facts.parameters <= 300_000
    assert sr.facts.macs_per_pixel == measured_macs(sr.module)


def measured_macs(net):
    """Multiply-accumulates per input pixel, counted while the network runs."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    handles = [
        m.register_forward_hook(count) for m in net.modules() if isinstance(m, torch.nn.Conv2d)
    ]
    net(torch.rand(1, 3, 5, 4))
    for handle in handles:
        handle.remove()
    return total // 20


def test_loads_a_path(tiny):
    sr = load_sr(tiny)
    assert sr.facts.name == "tiny"
    assert sr.facts.scale == 2
    frames = torch.rand(1, 3, 12, 10)
    expected = random_net()(frames)
    torch.testing.assert_close(sr.upscale(frames), expected, atol=5e-3, rtol=0)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="mini-x2.*mini-x4"):
        load_sr("mini-x3")


def test_missing_file(tmp_path):
    with pytest.raises(EngineError, match="no weights at"):
        load_sr(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_file_of_another_format(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x80\x02 this is no safetensors file")
    with pytest.raises(EngineError, match="damaged"):
        load_sr(path)


def test_truncated_file(tiny):
    tiny.write_bytes(tiny.read_bytes()[:-100])
    with pytest.raises(EngineError, match="damaged"):
        load_sr(tiny)


@pytest.mark.parametrize("config", [{"kind": "dit"}, {}, ["mini"]])
def test_weights_of_another_kind(tmp_path, config):
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, random_net().state_dict(), config, {})
    with pytest.raises(EngineError, match="not of an SR model"):
        load_sr(path)


@pytest.mark.parametrize("change", [{"width": 16}, {"depth": 4}, {"scale": 4}])
def test_weights_that_do_not_fit_their_configuration(tmp_path, change):
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, random_net().state_dict(), {**TINY, **change}, {})
    with pytest.raises(EngineError, match="does not fit"):
        load_sr(path)


@pytest.mark.parametrize("config", [{"kind": "mini"}, {**TINY, "width": "wide"}])
def test_unusable_configuration(tmp_path, config):
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, random_net().state_dict(), config, {})
    with pytest.raises(EngineError, match="unusable configuration"):
        load_sr(path)


def test_half_precision_corrects_exact_pixels(tiny):
    """bf16 has 8 bits: were the pixels themselves rounded, the error would reach 2e-3."""
    frames = torch.rand(1, 3, 16, 16)
    net = MiniSR(2, width=8, depth=3).to(torch.bfloat16)  # untrained: the correction is zero
    nearest = frames.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(net(frames), nearest)
    exact, half = load_sr(tiny).upscale(frames), load_sr(tiny, dtype=torch.bfloat16).upscale(frames)
    assert half.dtype == torch.float32
    assert 0 < (exact - half).abs().max() < 0.03
