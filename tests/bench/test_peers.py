"""The comparison with peers: equal work on both sides, and rows that say so."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from dtg_restore.bench import peers
from dtg_restore.bench.peers import (
    against_diffusers,
    against_itself,
    line,
    read_clip,
    row,
    steps_made,
)
from dtg_restore.bench.random_wan import WanSize, model_folder

TINY = WanSize(2, 24, 2, 40, 8, 5, 32, 48, text_dim=20, text_tokens=6)
OPTIONS = Namespace(
    **{"steps": 12, "strength": 0.5, "elide_tol": 0.05, "reuse_tol": 0.0, "rounds": 1},
    **{"part_rounds": 1, "compile": None, "frames": 4},
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_diffusers_and_we_do_the_same() -> None:
    pytest.importorskip("diffusers")
    rows = list(against_diffusers(TINY, OPTIONS))
    names = [(r["name"], r["peer"]) for r in rows]
    assert names == [
        ("DiT", "diffusers"),
        ("VAE encode", "diffusers"),
        ("VAE decode", "diffusers"),
        ("whole", "diffusers"),
        ("whole, elided", "diffusers"),
        ("whole, elided", "ours"),
    ]
    for found in rows[:4]:
        assert found["max_error"] < 1e-3 and found["psnr"] > 70, found
        assert found["deviation"] > 0.01  # there is something to compare
    elided = rows[4]
    assert elided["evaluations"] == {"cond": 6, "uncond": 6 - elided["elision"]["saved"]}
    assert elided["elision"]["saved"] > 0 and 20 < elided["psnr"] < 150
    assert all(r["ratio"] > 0 and r["name"] in line(r) for r in rows)


def test_mini_against_itself() -> None:
    whole, elided, *others = against_itself(OPTIONS)
    assert all(row["psnr"] > 45 for row in others)  # what the processor has besides fp32
    assert whole["max_error"] < 1e-3 and whole["branches"]["asked"] == "auto"
    assert (whole["name"], elided["name"]) == ("whole", "whole, elided")
    assert (
        elided["elision"]["saved"]
        == whole["evaluations"]["uncond"] - (elided["evaluations"]["uncond"])
    )


def test_steps_are_those_that_diffusers_makes() -> None:
    scheduler = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipeline = pytest.importorskip("diffusers").WanVideoToVideoPipeline
    for steps, strength in ((20, 0.5), (20, 1.0), (7, 0.4), (10, 0.33)):
        scheduler.set_timesteps(steps)
        used = Namespace(scheduler=scheduler)
        times, _ = pipeline.get_timesteps(used, steps, scheduler.timesteps, strength, "cpu")
        assert steps_made(steps, strength) == len(times)


def test_the_defaults_make_ten_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Namespace] = []
    monkeypatch.setattr(peers, "against_diffusers", lambda size, given: seen.append(given) or [])
    arguments = ["peers", "--preset", "small", "--out", str(tmp_path / "x.json")]
    for further in ([], ["--compile"], ["--compile", "vae"]):
        monkeypatch.setattr(sys, "argv", arguments + further)
        peers.main()
    assert [given.compile for given in seen] == [None, "all", "vae"]
    assert steps_made(seen[0].steps, seen[0].strength) == 10


def test_compiled_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **given: compiled.append((type(self), given))
    )
    rows = list(against_diffusers(TINY, Namespace(**vars(OPTIONS) | {"compile": "all"})))
    assert [name.__name__ for name, _ in compiled] == [
        *("WanTransformer3DModel", "WanEncoder3d", "WanDecoder3d")
    ]
    assert all(given["mode"] == "default" for _, given in compiled)
    second = [r for r in rows if r["peer"] == peers.WITH_COMPILE]
    names = ["DiT", "VAE encode", "VAE decode", "whole", "whole, elided"]
    assert [r["name"] for r in second] == names
    assert second[-1]["compiled"]["parts"] == ("transformer", "vae.encoder", "vae.decoder")
    assert list(second[-1]["compiled"]["first_call_s"]) == names[:3]
    assert all("compiled" not in r for r in rows if r["peer"] == "diffusers")


def test_sides_begin_in_turns() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) or torch.ones(1) for name in "ab"}
    peers.take_turns(sides, 3, torch.device("cpu"))
    assert "".join(order) == "abbaab"


def test_row() -> None:
    want = torch.tensor([0.0, 2.0])
    found = row("a", "b", [3.0, 2.0], [1.0, 4.0], want + torch.tensor([0.0, 0.2]), want)
    assert found["ratio"] == 2 and found["max_error"] == pytest.approx(0.1)
    assert found["psnr"] == pytest.approx(23.01, abs=0.01)  # 0.1 in one of two values


def test_weights_are_written_once(cache: Path) -> None:
    pytest.importorskip("diffusers")
    folder = model_folder(TINY)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert model_folder(TINY) == folder and len(before) > 5
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert [p.name for p in (cache / "bench").iterdir()] == [folder.name]


def test_clip_without_material(tmp_path: Path) -> None:
    frames = read_clip(TINY, tmp_path / "absent.mp4")
    assert frames.shape == (5, 3, 32, 48) and 0 <= frames.min() < frames.max() <= 1
    assert frames.diff(dim=0).abs().mean() > 1e-3


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["peers", "--preset", "wan-1.3b", "--out", "x.json"])
    with pytest.raises(SystemExit) as stopped:
        peers.main()
    assert stopped.value.code == 2 and "needs a GPU" in capsys.readouterr().err


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = row("a", "b", [1.0], [1.0], torch.ones(2), torch.ones(2))
    monkeypatch.setattr(peers, "against_itself", lambda options: [made])
    target = tmp_path / "results" / "x.json"
    monkeypatch.setattr(sys, "argv", ["peers", "--preset", "mini", "--out", str(target)])
    peers.main()
    found = json.loads(target.read_text())
    assert found["rows"] == [made] and found["settings"]["preset"] == "mini"
    assert {"commit", "machine", "versions"} <= found["provenance"].keys()
