"""The figures: the same bytes for the same results, and all of the results in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.bench import plots

pytest.importorskip("matplotlib")

PEERS = {
    "rows": [
        {"name": name, "peer": peer, "ratio": ratio, "max_error": 2e-6, "psnr": 121.4}
        for name in ("DiT", "VAE encode", "whole, elided")
        for peer, ratio in (("diffusers", 1.52), ("diffusers + torch.compile", 1.23))
    ]
    + [{"name": "whole, elided", "peer": "ours", "ratio": 9.87, "max_error": 0, "psnr": 200}]
}
ROOFLINE = {
    "copy_bytes_per_second": 1e10,
    "matmul_flops_per_second": 1.1e11,
    "products_flop_per_s": {"MKL": 9.7e10, "oneDNN": 1.1e11},
    "rows": [
        {"stage": "a pass", "flop_per_byte": 500, "flop_per_s": 9e10, "share_of_floor": 0.81},
        {"stage": "a whole", "flop_per_byte": 90, "flop_per_s": 5e10, "share_of_floor": 0.45},
    ],
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    results = tmp_path / "results"
    results.mkdir()
    (results / "peers_small.json").write_text(json.dumps(PEERS))
    (results / "roofline.json").write_text(json.dumps(ROOFLINE))
    return results, tmp_path / "docs"


def run(folders: tuple[Path, Path], *arguments: str) -> Any:
    with pytest.raises(SystemExit) as stopped:
        plots.main(["--results", str(folders[0]), "--out", str(folders[1]), *arguments])
    return stopped.value.code


def test_drawn_once_and_checked(folders: tuple[Path, Path]) -> None:
    assert run(folders, "--check") == 1 and not folders[1].exists()
    assert run(folders) == 0
    before = {path.name: path.read_bytes() for path in folders[1].iterdir()}
    assert before.keys() == {"peers.svg", "roofline.svg"}
    assert run(folders, "--check") == 0  # the same bytes again
    (folders[1] / "peers.svg").write_text("older")
    assert run(folders, "--check") == 1 and run(folders) == 0
    assert {path.name: path.read_bytes() for path in folders[1].iterdir()} == before


def test_what_the_figures_say(folders: tuple[Path, Path]) -> None:
    run(folders)
    bars, roof = ((folders[1] / name).read_text() for name in ("peers.svg", "roofline.svg"))
    for text in ("VAE encode", "1.52x", "1.23x", "error 2e-06, 121 dB", "torch.compile"):
        assert text in bars
    assert "9.87" not in bars  # our own exact run is no peer
    for text in ("MKL 97 GFLOP/s", "oneDNN 110 GFLOP/s", "copy 10 GB/s", "a whole: 45% of"):
        assert text in roof
    assert "<dc:date>" not in bars


def test_results_that_are_absent(folders: tuple[Path, Path]) -> None:
    (folders[0] / "peers_small.json").unlink()
    assert run(folders) == 0
    assert [path.name for path in folders[1].iterdir()] == ["roofline.svg"]
