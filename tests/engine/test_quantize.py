"""Quantised matrices: how far from the full ones, what they spare, what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dtg_restore import Restorer
from dtg_restore.engine.backbones.blocks import Block
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.offload import module_bytes
from dtg_restore.engine.quantize import (
    DYNAMIC,
    KINDS,
    QuantizedLinear,
    check_kind,
    quantize_blocks,
    quantize_linear,
    quantize_linears,
)

BOTH = pytest.mark.parametrize("kind", ["int8", "fp8"])  # of weights alone
# Relative rms error of Gaussian matrices of 256 columns.  int8: the step is the row's peak, about
# 2.8 to 3.2 deviations, / 127, its rms 1 / sqrt(12) of that; fp8: three bits of mantissa.
EXPECTED = {"int8": (0.0064, 0.0076), "fp8": (0.0255, 0.0268)}


def relative_rms(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


def gaussian(out_features: int, in_features: int, seed: int = 0) -> Tensor:
    return torch.randn(out_features, in_features, generator=torch.Generator().manual_seed(seed))


def linear_of(weight: Tensor, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias).requires_grad_(False)
    linear.weight.copy_(weight)
    return linear


@BOTH
def test_error_of_weights_and_of_a_product(kind: str) -> None:
    linear = linear_of(gaussian(192, 256))
    linear.bias.zero_()
    quantized = QuantizedLinear(linear, kind)
    low, high = EXPECTED[kind]
    assert low < relative_rms(quantized.dequantize(torch.float32), linear.weight) < high
    x = gaussian(64, 256, seed=1)
    assert low < relative_rms(quantized(x), linear(x)) < 1.1 * high


@BOTH
def test_rows_have_scales_of_their_own(kind: str) -> None:
    weight = gaussian(6, 256) * 10.0 ** torch.arange(-3, 3)[:, None]
    found = QuantizedLinear(linear_of(weight), kind).dequantize(torch.float32)
    for row, expected in zip(found, weight, strict=True):
        assert relative_rms(row, expected) < 1.15 * EXPECTED[kind][1]


@BOTH
def test_largest_values_are_exact(kind: str) -> None:
    q, scale = quantize_linear(torch.tensor([[-3.0, 1.5, 0.0], [0.1, 0.1, -0.1]]), kind)
    dtype, limit = KINDS[kind]
    assert q.dtype == dtype and (scale.dtype, scale.shape) == (torch.float32, (2, 1))
    assert limit == {"int8": 127, "fp8": 448}[kind]  # the largest of the format
    assert q.float().abs().amax(1).tolist() == [limit, limit]
    assert torch.allclose((q.float() * scale)[:, 0], torch.tensor([-3.0, 0.1]), rtol=1e-6)


def test_int8_rounds_to_the_nearest() -> None:
    weight = gaussian(16, 64)
    q, scale = quantize_linear(weight, "int8")
    assert ((q.float() * scale - weight).abs() <= 0.5001 * scale).all()


@BOTH
def test_zero_and_tiny_rows(kind: str) -> None:
    weight = gaussian(4, 8)
    weight[1] = 0
    weight[2] = torch.tensor([1e-44] + [0.0] * 7)  # its scale would be zero
    found = QuantizedLinear(linear_of(weight), kind).dequantize(torch.float32)
    assert found.isfinite().all() and not found[1:3].any()
    assert relative_rms(found[0], weight[0]) < 0.05


@BOTH
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite(kind: str, value: float) -> None:
    weight = gaussian(4, 8)
    weight[2, 3] = value
    with pytest.raises(EngineError, match=f"not finite cannot be held as {kind}"):
        quantize_linear(weight, kind)
    with pytest.raises(EngineError, match=r"^1\.net: "):
        quantize_linears(nn.Sequential(nn.Linear(2, 2), Named(weight)), kind)


class Named(nn.Module):
    def __init__(self, weight: Tensor):
        super().__init__()
        self.net = linear_of(weight)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind: str, dtype: torch.dtype) -> None:
    linear = linear_of(gaussian(48, 64))
    x = gaussian(5, 64, seed=1)
    found = QuantizedLinear(linear, kind)(x.to(dtype))
    assert found.dtype == dtype
    assert relative_rms(found, linear(x)) < 1.1 * EXPECTED[kind][1] + 0.004
    # The scale is applied in fp32: one rounding, not two.
    quantized = QuantizedLinear(linear, kind)
    assert torch.equal(quantized.dequantize(dtype), quantized.dequantize(torch.float32).to(dtype))


@BOTH
def test_weights_in_half_precision(kind: str) -> None:
    weight = gaussian(16, 64).to(torch.bfloat16)
    assert all(
        torch.equal(half.float(), full.float())
        for half, full in zip(
            quantize_linear(weight, kind), quantize_linear(weight.float(), kind), strict=True
        )
    )


@BOTH
@pytest.mark.parametrize("bias", [True, False])
def test_bias(kind: str, bias: bool) -> None:
    linear = linear_of(torch.zeros(3, 8), bias=bias)
    y = QuantizedLinear(linear, kind)(torch.ones(2, 8))
    assert torch.equal(y, linear(torch.ones(2, 8)))


@BOTH
def test_casting_the_network_leaves_the_codes_alone(kind: str) -> None:
    quantized = QuantizedLinear(linear_of(gaussian(8, 16)), kind)
    before = quantized.dequantize(torch.float32)
    quantized.to(torch.bfloat16).half().to(torch.device("cpu"), torch.bfloat16)
    assert quantized.weight.dtype == KINDS[kind][0]
    assert (quantized.scale.dtype, quantized.bias.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(quantized.dequantize(torch.float32), before)
    assert quantized(torch.ones(1, 16)).dtype == torch.float32


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(Block(16, 2, 32) for _ in range(2))
        self.proj_out = nn.Linear(16, 8)


@BOTH
def test_blocks_alone(kind: str) -> None:
    torch.manual_seed(0)
    network = Network().requires_grad_(False).to(torch.bfloat16)
    full = copy.deepcopy(network)
    quantize_blocks(network, kind)
    quantised = {n for n, part in network.named_modules() if isinstance(part, QuantizedLinear)}
    expected = {
        name
        for name, part in full.named_modules()
        if isinstance(part, nn.Linear) and name.startswith("blocks.")
    }
    assert quantised == expected and len(expected) == 2 * (4 + 4 + 2)
    assert {n for n, p in network.named_modules() if isinstance(p, nn.Linear)} == {
        "patch_embedding",
        "proj_out",
    }
    values = sum(full.get_submodule(name).weight.numel() for name in expected)
    rows = sum(full.get_submodule(name).weight.shape[0] for name in expected)
    assert module_bytes(full) - module_bytes(network) == values - 4 * rows
    assert network.state_dict().keys() == full.state_dict().keys()
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in full.state_dict().items()
    }


@BOTH
def test_streaming_into_a_network_on_the_meta_device(kind: str) -> None:
    torch.manual_seed(0)
    source = Network().requires_grad_(False)
    with torch.device("meta"):
        network = Network()
    quantize_blocks(network, kind)
    planned = module_bytes(network)
    for name, tensor in source.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        part = network.get_submodule(owner)
        if isinstance(part, QuantizedLinear) and leaf == "weight":
            assert part.take(tensor) is part.weight
        else:
            setattr(part, leaf, nn.Parameter(tensor, requires_grad=False))
    quantize_blocks(source, kind)
    assert module_bytes(network) == module_bytes(source) == planned
    rope = torch.ones(3, 4), torch.zeros(3, 4)
    x, modulation = gaussian(3, 16)[None], torch.zeros(1, 6, 16)
    for ours, theirs in zip(network.blocks, source.blocks, strict=True):
        pair = theirs.attn2.keys_values(x)
        assert torch.equal(ours(x, modulation, rope, pair), theirs(x, modulation, rope, pair))


def test_error_of_a_product_in_8_bits() -> None:
    """The weights' part and that of x, whose step is its range / 255, of about 8.2 deviations."""
    linear = linear_of(gaussian(192, 256))
    linear.bias.zero_()
    x = gaussian(64, 256, seed=1)
    found = QuantizedLinear(linear, DYNAMIC)(x)
    assert 0.010 < relative_rms(found, linear(x)) < 0.0125


def test_8_bits_of_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the exact frames, and not the same; where the processor cannot, it is said."""
    frames = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = Restorer.load(sr="none").restore(frames)
    monkeypatch.setattr("dtg_restore.engine.quantize.missing", lambda: [])
    found = Restorer.load(sr="none", weights=DYNAMIC).restore(frames)
    assert 1e-5 < (found - exact).abs().max() < 0.02
    monkeypatch.setattr("dtg_restore.engine.quantize.missing", lambda: ["it is too old"])
    with pytest.raises(EngineError, match="int8-dynamic.*it is too old"):
        Restorer.load(sr="none", weights=DYNAMIC)


def test_8_bits_are_for_a_cpu() -> None:
    check_kind("int8", torch.device("cuda"))
    with pytest.raises(ConfigError, match="which is for a CPU"):
        check_kind(DYNAMIC, torch.device("cuda"))
