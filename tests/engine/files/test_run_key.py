"""What decides the bytes of a run is in its key, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import InputError
from dtg_restore.engine.files.run_key import ENDS, fingerprint, run_key

CONFIG = RestoreConfig(device="cpu")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mkv"
    path.write_bytes(bytes(3 * ENDS))
    return path


def keep_time(path: Path, content: bytes) -> None:
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_video_is_known_wherever_it_lies(video: Path, tmp_path: Path) -> None:
    before = fingerprint(str(video))
    (tmp_path / "there").mkdir()
    moved = shutil.move(video, tmp_path / "there" / "other.mkv")
    assert fingerprint(str(moved)) == before


@pytest.mark.parametrize("place", [0, ENDS - 1, 2 * ENDS, 3 * ENDS - 1])
def test_a_video_that_changes(video: Path, place: int) -> None:
    before = fingerprint(str(video))
    content = bytearray(3 * ENDS)
    content[place] = 1
    keep_time(video, bytes(content))
    assert fingerprint(str(video)) != before
    keep_time(video, bytes(3 * ENDS))
    assert fingerprint(str(video)) == before
    os.utime(video, ns=(0, 0))
    assert fingerprint(str(video)) != before


def test_pictures(clip: Callable[..., Tensor], pictures: Callable[..., Path]) -> None:
    folder = pictures(clip(3, 4, 4))
    before = fingerprint(str(folder))
    assert fingerprint(str(folder / "%06d.png")) == before
    (folder / "000001.png").rename(folder / "000007.png")
    assert fingerprint(str(folder)) != before
    (folder / "000007.png").rename(folder / "000001.png")
    assert fingerprint(str(folder)) == before
    keep_time(folder / "000001.png", (folder / "000001.png").read_bytes() + b"x")
    assert fingerprint(str(folder)) != before


def test_an_input_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.mkv: No such file"):
        fingerprint(str(tmp_path / "gone.mkv"))


def key(video: Path, config: RestoreConfig = CONFIG, **output: Any) -> dict[str, Any]:
    return run_key(config, str(video), (0, None), {"codec": "h264"} | output)


def test_models_are_known_by_their_content(video: Path, weights: Path, tmp_path: Path) -> None:
    here = replace(CONFIG, backbone=str(weights), sr="none")
    shutil.copy(weights, tmp_path / "copy.safetensors")
    there = replace(here, backbone=str(tmp_path / "copy.safetensors"))
    assert key(video, here) == key(video, there)
    assert key(video, here) != key(video, replace(here, backbone="mini"))
    embeds = tmp_path / "embeds.safetensors"
    embeds.write_bytes(b"a")
    with_embeds = key(video, replace(CONFIG, prompt_embeds=str(embeds)))
    embeds.write_bytes(b"b")
    assert key(video, replace(CONFIG, prompt_embeds=str(embeds))) != with_embeds


def test_shots_are_known_by_their_content(video: Path, tmp_path: Path) -> None:
    lists = [tmp_path / "a.txt", tmp_path / "b.txt"]
    lists[0].write_text("0\n5\n")
    lists[1].write_text("# the same\n5\n")
    first, second = (key(video, replace(CONFIG, shots=str(path))) for path in lists)
    assert first == second != key(video)
    lists[1].write_text("6\n")
    assert key(video, replace(CONFIG, shots=str(lists[1]))) != first


def test_whatever_else_decides(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(video)
    for config in (replace(CONFIG, steps=3), replace(CONFIG, tile=(8, 8))):
        assert key(video, config) != before
    assert key(video, codec="ffv1") != before
    assert run_key(CONFIG, str(video), (0, 5), {"codec": "h264"}) != before
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert key(video)["the machine's threads"] == 7
    monkeypatch.undo()
    monkeypatch.setenv("DTG_KERNELS", "dtg_step=reference")
    assert key(video) != before


@pytest.mark.parametrize(
    ("frames", "said"), [((0, None), "all"), ((3, None), "3-"), ((0, 16), "0-15")]
)
def test_frames_are_said_as_they_are_asked_for(
    video: Path, frames: tuple[int, int | None], said: str
) -> None:
    assert run_key(CONFIG, str(video), frames, {})["frames"] == said
