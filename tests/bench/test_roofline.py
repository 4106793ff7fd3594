"""Ceilings, counted operations, and shares of a floor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtg_restore.bench import ceilings, roofline
from dtg_restore.bench.roofline import (
    Stage,
    against_floor,
    counted_flop,
    wan_pass,
    weight_bytes,
    whole,
)
from dtg_restore.kernels import native

CPU = torch.device("cpu")


def test_products_are_the_same_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(8, 5), torch.randn(3, 5)
    with torch.inference_mode():
        found = {name: call() for name, call in ceilings.products(x, weight)}
    assert ("oneDNN" in found) == torch.backends.mkldnn.is_available() and len(found) >= 1
    for result in found.values():
        torch.testing.assert_close(result, x @ weight.T)
    monkeypatch.setattr(ceilings, "SHAPES", {"cpu": ((16, 16, 16), (32, 8, 4))})
    rates = ceilings.matmul_rates(CPU, seconds=0)
    assert rates.keys() == found.keys() and min(rates.values()) > 0


@pytest.mark.parametrize(
    "kind", ["in place", "prepared", "attention", "convolution", "prepared groups"]
)
def test_operations_are_counted(kind: str) -> None:
    a, x, weight = torch.randn(2, 4, 4), torch.randn(8, 5), torch.randn(3, 5)
    query = torch.randn(1, 2, 6, 4)
    calls = {
        "in place": (lambda: a.clone().baddbmm_(a, a), 2 * 2 * 4**3),
        "attention": (
            lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query),
            2 * 2 * 2 * 6 * 6 * 4,
        ),
        "convolution": (lambda: torch.nn.functional.conv1d(a, torch.ones(3, 4, 1)), 2 * 2 * 3 * 16),
    }
    if torch.backends.mkldnn.is_available():
        prepared = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
        multiply = torch.ops.mkldnn._linear_pointwise
        product = (lambda: multiply(x, prepared, None, "none", [], ""), 2 * 8 * 5 * 3)
        calls["prepared"] = product
        groups = torch.randn(6, 4, 3, 1, 1)  # 2 groups of 4 channels, 3 outputs each
        sizes = [0, 0, 0], [1, 1, 1], [1, 1, 1], 2
        packed = torch.ops.mkldnn._reorder_convolution_weight(groups, *sizes, [1, 8, 5, 1, 7])
        convolve, volume = torch.ops.mkldnn._convolution_pointwise, torch.randn(1, 8, 5, 1, 7)
        calls["prepared groups"] = (
            lambda: convolve(volume, packed, None, *sizes, "none", [], ""),
            2 * 6 * 3 * 7 * 4 * 3,
        )
    if kind not in calls:
        pytest.skip("torch was built without oneDNN")
    call, want = calls[kind]
    with torch.inference_mode():
        assert counted_flop(call)[0] == want


def test_ops_are_counted_as_their_references() -> None:
    if native.missing():
        pytest.skip("no native library")
    network = wan_pass("tiny", (5, 32, 32), CPU, torch.float32)
    with torch.inference_mode():
        assert counted_flop(network.call)[0] == network.flop


def test_a_stage() -> None:
    x, weight = torch.randn(8, 5), torch.randn(5, 3)
    row = roofline.measure(Stage("s", lambda: x @ weight, x, weight.nbytes, times=2), CPU, 2)
    assert (row["flop"], row["bytes"]) == (2 * 8 * 5 * 3, 4 * (40 + 24 + 15))
    declared = roofline.measure(Stage("s", lambda: x @ weight, x, 0, flop=7.0), CPU, 1)
    assert declared["flop"] == 7


def test_shares_of_parts_and_whole() -> None:
    def part(name: str, flop: float, moved: float, best: float, times: int) -> dict:
        return {
            **{"stage": name, "flop": flop, "bytes": moved, "best_s": best},
            **{"median_s": best, "times_in_whole": times},
        }

    rows = [
        part("by products", 100.0, 1.0, 2.0, 2),
        part("by bytes", 1.0, 50.0, 10.0, 1),
        part("other", 9.0, 9.0, 9.0, 0),
    ]
    rows.append(whole(rows, [20.0, 16.0]))
    floors: dict[str, float] = {}
    for index, row in enumerate(rows):
        rows[index] = against_floor(row, flops=100.0, moved=10.0, floors=floors)
        floors[row["stage"]] = rows[index]["floor_s"]
    assert [row["share_of_floor"] for row in rows[:2]] == [0.5, 0.5]
    assert (rows[-1]["flop"], rows[-1]["bytes"]) == (201, 52)
    assert rows[-1]["floor_s"] == 2 * 1 + 5 and rows[-1]["share_of_floor"] == round(7 / 16, 3)
    assert rows[0]["share_of_peak"] == 0.5 and rows[0]["flop_per_byte"] == 100


def test_weight_bytes(tmp_path: Path) -> None:
    tensors = {"encoder.a": torch.ones(2, 3), "quant.b": torch.ones(4), "decoder.c": torch.ones(9)}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    assert weight_bytes(tmp_path, ("encoder.", "quant.")) == 40


def test_the_parts_of_the_small_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    from dtg_restore.bench.random_wan import WanSize

    monkeypatch.setenv("DTG_CACHE", str(tmp_path))
    monkeypatch.setattr(roofline, "STEPS", 4)
    size = WanSize(2, 24, 1, 40, 8, 5, 32, 48, text_dim=20, text_tokens=6)
    pipeline = roofline.SmallPipeline(size)
    with torch.inference_mode():
        rows = [roofline.measure(stage, CPU, 1) for stage in pipeline.stages()]
    assert [row["times_in_whole"] for row in rows] == [1, 2, 1]
    assert all(row["flop"] > 1e5 and row["bytes"] > 1e4 for row in rows)
    assert pipeline.restore().shape == (5, 3, 32, 48)
