"""The README shows what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.bench import tables
from dtg_restore.bench import tables_quality as quality
from dtg_restore.bench import tables_speed as speed


@pytest.mark.parametrize("page", tables.PAGES)
def test_pages_hold_the_tables_of_the_results(page: str) -> None:
    text = (tables.ROOT / page).read_text()
    assert tables.render(text, page) == text


def test_a_place_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="quality"):
        tables.render("no table here", tables.README)


def test_quality_table_has_a_row_for_every_method() -> None:
    result = json.loads((tables.RESULTS / "quality_mini.json").read_text())
    lines = quality.quality(result).splitlines()
    assert len(lines) == 2 + len(result["rows"])
    assert lines[2].startswith("| input | ")


def test_a_table_without_results_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "<!-- table step -->\nas it was\n<!-- end step -->"
    assert tables.render(text, tables.SPEED) == text
    row = {"model": "m", "path": "batched", "best_s": 0.0125, "ratio": 1.5, "max_error": 2e-7}
    (tmp_path / "step.json").write_text(json.dumps({"rows": [row]}))
    assert "| m | batched | 12.5 ms | 1.50 | 2e-07 |\n<!-- end step" in tables.render(
        text, tables.SPEED
    )


def test_kernels_table_has_the_fastest_of_ours() -> None:
    def row(implementation: str, best: float, **more: Any) -> dict[str, Any]:
        return {
            **{"op": "f", "case": "production", "dtype": "bfloat16"},
            **{"implementation": implementation, "best_s": best, "ratio": 4.0},
            **{"ratio_to_compiled": 2.0, "share_of_bandwidth": 0.876, **more},
        }

    rows = [
        row("native", 0.002),
        row("triton", 0.001),
        row("reference", 0.004),
        row("compiled reference", 0.0001),
        row("copy", 0.0001),
        row("triton", 0.00001, case="odd sizes"),
        {"op": "f", "case": "production", "dtype": "float32", "implementation": "absent"},
    ]
    lines = speed.kernels({"rows": rows}).splitlines()
    assert lines[2:] == ["| `f` | bf16 | triton | 1.00 ms | 4.00 | 2.00 | 88% |"]


def test_roofline_table() -> None:
    row = {"stage": "s", "flop": 3e9, "best_s": 0.05, "flop_per_s": 6e10, "share_of_floor": 0.6}
    assert "| s | 3 GFLOP | 0.05 s | 60 GFLOP/s | 60% |" in speed.roofline({"rows": [row]})


def test_throughput_table() -> None:
    row = {
        **{"frames": 28, "height": 64, "width": 96, "chunks": 2, "tiles": 4},
        **{"frames_per_s": 5.5, "first_frame_s": 3.0, "peak_memory_bytes": {"host": 5e8}},
    }
    rows = [row | {"s_per_later_chunk": 2.25}, row | {"s_per_later_chunk": None}]
    lines = speed.throughput({"rows": {"length": rows}}).splitlines()
    assert lines[2] == "| 28 frames of 96 x 64 | 2 | 4 | 5.50 | 3.00 s | 2.25 s | 500 MB |"
    assert lines[3].endswith("| 3.00 s |  | 500 MB |")


def test_table_of_joins() -> None:
    whole = {"step": 1.02, "pulse": 0.2}
    mixed = {"largest_own_step": 1.005, "sharpness": 0.99, "temporal_error": 7.4, "psnr": 26.19}
    rows = [
        {"settings": "default", "overlap": 0, "fade": "none"} | whole,
        {"settings": "default", "overlap": 2, "fade": "linear"} | whole | mixed,
        {"settings": "default", "overlap": 2, "fade": "fitted", "weights": [0.2, 0.75]},
    ]
    lines = quality.joins({"rows": rows}).splitlines()
    assert lines[2:] == [
        "| default | 0 | none | 1.02 |  |  | 0.20 |  |  |",
        "| default | 2 | linear | 1.02 | 1.005 | 0.990 | 0.20 | 7.40 | 26.19 |",
    ]
    lines = quality.fitted({"rows": rows}).splitlines()
    assert lines[2:] == ["| default | 2 | 0.20, 0.75 |", "| ours | 2 | 0.21, 0.79 |"]


def test_table_of_colours() -> None:
    row = {"clips": "generated", "settings": "default", "method": "wavelet", "drift": 1.0}
    row |= {"largest_drift": 2.0, "join_change": 0.25, "other_change": 0.5, "pulse": 0.125}
    assert (
        "| generated, default | wavelet | 1.00 | 2.00 | 0.25 | 0.50 | 0.12 |  |"
        in quality.color({"rows": [row]})
    )
