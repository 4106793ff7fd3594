"""A bundle's super-resolution engine against its network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.bundle.sr import EngineModule
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sr import load_sr, sr_facts
from dtg_restore.engine.sr.frames import FrameSR


def test_enlarges_as_the_network_does(
    bundle: Path, sr_weights: Path, clip: Callable[..., Tensor]
) -> None:
    network, engine = load_sr(sr_weights), load_sr(bundle)
    assert isinstance(engine, FrameSR)
    assert engine.facts == sr_facts(bundle) == network.facts
    for size in ((2, 7, 13), (1, 300, 20)):  # the second one in tiles
        frames = clip(*size)
        torch.testing.assert_close(
            engine.upscale(frames), network.upscale(frames), atol=1e-5, rtol=0
        )


def test_a_run_with_both_stages(bundle: Path, clip: Callable[..., Tensor]) -> None:
    restorer = Restorer.open(bundle, steps=1, overlap=2, tile_overlap=8)
    assert restorer.scale == 2
    assert restorer.restore(clip(5, 18, 26)).shape == (5, 3, 36, 52)


def test_calls_of_an_engine_follow_each_other() -> None:
    busy, clashes = threading.Lock(), []

    class Engine:
        def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            if not busy.acquire(blocking=False):
                clashes.append(1)
            threading.Event().wait(0.01)
            busy.release()
            return {"upscaled": inputs["frames"]}

    module = EngineModule(Engine())  # type: ignore[arg-type]
    threads = [threading.Thread(target=module, args=(torch.zeros(1),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes


def test_what_is_no_bundle_is_read_as_ever(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no weights at"):
        load_sr(str(tmp_path / "absent.safetensors"))
