"""Weights in one file or in shards: what is read, and what each kind of damage says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.shards import check_keys, load_into, open_shards

STATE = {
    "0.weight": torch.arange(6.0).view(2, 3),
    "0.bias": torch.tensor([1.0, 2.0]),
    "1.weight": torch.ones(1, 2, dtype=torch.bfloat16),
    "1.bias": torch.zeros(1, dtype=torch.float16),
}
INDEX = "model.safetensors.index.json"


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def sharded(folder: Path, state: dict[str, Tensor] = STATE) -> Path:
    """Two shards and their index."""
    places = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(state)}
    for name in set(places.values()):
        save_file({k: state[k] for k, place in places.items() if place == name}, folder / name)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    return folder


def single(folder: Path, state: dict[str, Tensor] = STATE) -> Path:
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("write", [sharded, single])
@pytest.mark.parametrize("renamed", [False, True])
def test_load(tmp_path: Path, write, renamed: bool) -> None:
    state = {f"model.{key}": value for key, value in STATE.items()} if renamed else STATE
    shards, module = open_shards(write(tmp_path, state)), network()
    seen = []

    def place(name: str, tensor: Tensor) -> Tensor:
        seen.append(name)
        return tensor.to(torch.float64, copy=True)

    def rename(key: str) -> str:
        return key.removeprefix("model.")

    check_keys(shards, module, rename)
    load_into(module, shards, rename, place)
    assert sorted(seen) == sorted(STATE)
    for key, value in STATE.items():
        assert torch.equal(module.state_dict()[key], value.double())
        assert not module.get_parameter(key).requires_grad


def test_a_file_by_its_name(tmp_path: Path) -> None:
    path = single(tmp_path) / "model.safetensors"
    assert open_shards(path).shapes == {key: tuple(t.shape) for key, t in STATE.items()}


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    """Headers suffice to check the keys: a file whose data is missing opens as far as it can."""
    shards = open_shards(single(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    check_keys(shards, network(), str)
    with pytest.raises(EngineError, match="cannot be read"):
        list(shards.tensors())


def test_every_wrong_key_is_named(tmp_path: Path) -> None:
    state = dict(STATE) | {"2.weight": torch.ones(1), "0.bias": torch.ones(3)}
    del state["1.bias"]
    with pytest.raises(EngineError) as caught:
        check_keys(open_shards(single(tmp_path, state)), network(), str)
    text = str(caught.value)
    assert str(tmp_path) in text
    for part in ("missing 1.bias", "unexpected 2.weight", "wrong shape 0.bias (3,) instead of (2,"):
        assert part in text


def test_many_wrong_keys_are_counted(tmp_path: Path) -> None:
    state = {f"extra.{i}": torch.ones(1) for i in range(30)} | STATE
    with pytest.raises(EngineError, match=r"unexpected extra\.0, .* and 22 more$"):
        check_keys(open_shards(single(tmp_path, state)), network(), str)


def test_other_shapes_on_disk_where_they_are_announced(tmp_path: Path) -> None:
    state = dict(STATE) | {"0.weight": torch.ones(2, 3, 1, 1)}
    shards = open_shards(single(tmp_path, state))
    check_keys(shards, network(), str, {"0.weight": (2, 3, 1, 1)})
    with pytest.raises(EngineError, match="wrong shape"):
        check_keys(shards, network(), str)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_shard(tmp_path: Path, keep: int) -> None:
    path = sharded(tmp_path) / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"model-1\.safetensors is cut short"):
        open_shards(tmp_path)


def test_missing_shard(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-0.safetensors").unlink()
    with pytest.raises(EngineError, match=r"no weights at .*model-0\.safetensors"):
        open_shards(tmp_path)


def test_missing_index(tmp_path: Path) -> None:
    (sharded(tmp_path) / INDEX).unlink()
    with pytest.raises(EngineError, match=r"2 \.safetensors files and no .*index\.json"):
        open_shards(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "not json"])
def test_damaged_index(tmp_path: Path, text: str) -> None:
    (sharded(tmp_path) / INDEX).write_text(text)
    with pytest.raises(EngineError, match=r"index\.json is no index of shards"):
        open_shards(tmp_path)


def test_index_that_promises_too_much(tmp_path: Path) -> None:
    index = sharded(tmp_path) / INDEX
    places = json.loads(index.read_text())["weight_map"] | {"9.weight": "model-0.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(EngineError, match=r"model-0\.safetensors lacks 9\.weight"):
        open_shards(tmp_path)


def test_wrong_dtype(tmp_path: Path) -> None:
    state = dict(STATE) | {"0.weight": torch.ones(2, 3, dtype=torch.int8)}
    with pytest.raises(EngineError, match=r"0\.weight in .* is I8: quantised weights are not read"):
        open_shards(single(tmp_path, state))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"holds no \.safetensors weights"):
        open_shards(tmp_path)
