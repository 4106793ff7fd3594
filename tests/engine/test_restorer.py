"""The public interface in memory: kinds of arrays, errors, shared models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.sr.mini import MiniSR

Load = Callable[..., Restorer]
Clip = Callable[..., Tensor]


@pytest.fixture
def sr_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net, path = MiniSR(2, 8, 2), tmp_path / "sr.safetensors"
    torch.nn.init.normal_(net.tail.weight, std=0.05)
    save_checkpoint(
        path, net.state_dict(), {"kind": "mini", "scale": 2, "width": 8, "depth": 2}, {}
    )
    return path


def as_bytes(frames: Tensor) -> np.ndarray:
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


# -- restore: kinds of arrays --------------------------------------------------------------------


def test_float_frames(load: Load, clip: Clip) -> None:
    frames = clip(5, 9, 13)
    before = frames.clone()
    got = load().restore(frames)
    assert isinstance(got, Tensor) and got.dtype == torch.float32 and got.shape == frames.shape
    assert got.min() >= 0 and got.max() <= 1
    assert torch.equal(frames, before)
    assert got.untyped_storage().data_ptr() != frames.untyped_storage().data_ptr()
    got.mul_(2)  # the caller's own: no view, no tensor of inference mode


def test_kinds_of_arrays_agree(load: Load, clip: Clip) -> None:
    restorer, pixels = load(), as_bytes(clip(5, 9, 13))
    kept = pixels.copy()
    got = restorer.restore(pixels)
    assert isinstance(got, np.ndarray) and got.dtype == np.uint8 and got.shape == pixels.shape
    assert np.array_equal(pixels, kept) and not np.shares_memory(got, pixels)

    from_tensor = restorer.restore(torch.from_numpy(pixels))
    assert isinstance(from_tensor, Tensor) and from_tensor.dtype == torch.uint8
    assert np.array_equal(from_tensor.numpy(), got)

    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    want = restorer.restore(floats)
    assert np.array_equal(as_bytes(want), got)  # rounded, not cut off
    from_array = restorer.restore(floats.numpy())
    assert isinstance(from_array, np.ndarray) and from_array.dtype == np.float32
    assert np.array_equal(from_array, want.numpy())


def test_views_of_arrays(load: Load, clip: Clip) -> None:
    """BGR to RGB by a reversed view, as everyone writes it; and memory that is read-only."""
    restorer, pixels = load(steps=1), as_bytes(clip(3, 8, 8))
    want = restorer.restore(np.ascontiguousarray(pixels[::-1, :, ::-1, ::-1]))
    assert np.array_equal(restorer.restore(pixels[::-1, :, ::-1, ::-1]), want)
    pixels.flags.writeable = False
    restorer.restore(pixels)


def test_scale(load: Load, clip: Clip, sr_weights: Path) -> None:
    frames = clip(5, 9, 13)
    restorer = load(sr=str(sr_weights))
    got = restorer.restore(frames)
    assert restorer.scale == 2 and got.shape == (5, 3, 18, 26)
    refined = load().restore(frames)
    want = torch.cat([restorer.sr.upscale(frame[None]) for frame in refined])
    assert torch.equal(got, want)
    assert restorer.restore(as_bytes(frames)).shape == (5, 18, 26, 3)


def test_super_resolution_alone(load: Load, clip: Clip, sr_weights: Path) -> None:
    frames = clip(3, 5, 7)
    restorer = load(backbone="none", sr=str(sr_weights))
    assert restorer.backbone is None and restorer.plan(5, 7) is None
    assert torch.equal(restorer.restore(frames), restorer.sr.upscale(frames))


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(0, 3, 8, 8),
        torch.zeros(3, 8, 8),
        torch.zeros(2, 4, 8, 8),
        torch.zeros(2, 8, 8, 3),  # floats are (T, 3, H, W)
        torch.zeros(2, 3, 8, 0),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),  # bytes are (T, H, W, 3)
        torch.zeros(2, 8, 8, 3, dtype=torch.int32),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint16),
        np.zeros((2, 8, 8, 3), bool),
        np.full((2, 8, 8, 3), None),
        "clip.mp4",
    ],
    ids=lambda f: f"{getattr(f, 'dtype', 'str')}-{tuple(getattr(f, 'shape', ()))}",
)
def test_no_frames(load: Load, frames: Any) -> None:
    with pytest.raises(InputError, match="frames"):
        load().restore(frames)


# -- stream ---------------------------------------------------------------------------------------


def test_stream_is_restore_frame_by_frame(load: Load, clip: Clip) -> None:
    frames, restorer = clip(7, 8, 16), load()
    want = restorer.restore(frames)
    for size in (None, (8, 16)):
        got = list(restorer.stream(iter(frames), size))
        assert torch.equal(torch.stack(got), want)
    got[0].zero_()  # each frame is the caller's own
    assert torch.equal(got[1], want[1])


def test_stream_of_nothing(load: Load) -> None:
    assert list(load().stream([])) == []
    assert list(load().stream([], (8, 8))) == []


def test_two_streams_at_once(load: Load, clip: Clip) -> None:
    restorer, a, b = load(), clip(6, 8, 8), clip(6, 16, 8, seed=1)
    pairs = list(zip(restorer.stream(a), restorer.stream(b), strict=True))
    assert torch.equal(torch.stack([x for x, _ in pairs]), restorer.restore(a))
    assert torch.equal(torch.stack([y for _, y in pairs]), restorer.restore(b))


# -- load and configure ---------------------------------------------------------------------------


def test_configure_shares_the_models(load: Load, clip: Clip) -> None:
    first, frames = load(), clip(4, 8, 8)
    second = first.configure(guidance="none", seed=5)
    assert second.backbone is first.backbone and second.sr is first.sr
    assert (second.config.guidance, second.config.seed) == ("none", 5)
    assert (first.config.guidance, first.config.seed) == ("dtg", 0)
    assert second.config.chunk == first.config.chunk
    before = first.restore(frames)
    assert torch.equal(second.restore(frames), load(guidance="none", seed=5).restore(frames))
    assert torch.equal(first.restore(frames), before)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "mini"},
        {"sr": "mini-x4"},
        {"device": "cuda"},
        {"dtype": "bf16"},
        {"runtime": "eager"},
    ],
)
def test_configure_refuses_to_change_models(load: Load, change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(change))} cannot change.*Restorer.load"):
        load().configure(**change)


def test_load_takes_a_config_and_changes(load: Load, weights: Path) -> None:
    config = RestoreConfig(backbone=str(weights), sr="none", device="cpu", steps=3)
    restorer = Restorer.load(config, steps=2)
    assert restorer.config == RestoreConfig(backbone=str(weights), sr="none", device="cpu", steps=2)
    assert config.steps == 3
    for make in (load, load().configure):
        with pytest.raises(ConfigError, match="unknown setting 'stepps'"):
            make(stepps=2)
        with pytest.raises(ConfigError, match="^steps is 0"):
            make(steps=0)


@pytest.mark.parametrize(
    ("settings", "error", "names"),
    [
        ({"backbone": "mimi"}, ConfigError, "did you mean 'mini'"),
        ({"backbone": "absent.safetensors"}, EngineError, "absent"),
        ({"sr": "mini-x3"}, ConfigError, "mini-x3"),
        ({"device": "gpu"}, ConfigError, "device is 'gpu'"),
        ({"runtime": "eagle"}, ConfigError, "did you mean 'eager'"),
        ({"backbone": "none"}, ConfigError, "nothing to do"),
    ],
)
def test_load_errors(
    load: Load, settings: dict[str, str], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        load(**settings)


def test_weights_of_the_other_kind_are_refused(load: Load, weights: Path, sr_weights: Path) -> None:
    with pytest.raises(EngineError, match=r"sr\.safetensors"):
        load(backbone=str(sr_weights))
    with pytest.raises(EngineError, match=r"small\.safetensors"):
        load(sr=str(weights))


def test_contradictions_come_before_any_work(load: Load, clip: Clip) -> None:
    with pytest.raises(ConfigError, match="overlap is 6"):
        load(chunk=8, overlap=6).restore(clip(3, 8, 8))
    with pytest.raises(ConfigError, match="quality tag"):
        load(prompt="a sunny day").restore(clip(3, 8, 8))
