from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtg_restore.engine import checkpoint
from dtg_restore.engine.checkpoint import load_card, load_checkpoint, load_state, save_checkpoint
from dtg_restore.engine.errors import EngineError

STATE = {"a.weight": torch.tensor([[1.0, 1 / 3], [-2.5, 1e-4]]), "b": torch.arange(3.0)}


def test_round_trip_is_fp16_on_disk_and_fp32_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, STATE, {"width": 8, "name": "ä"}, {"steps": 7})
    config, state = load_checkpoint(path)
    assert config == {"width": 8, "name": "ä"} and load_card(path) == {"steps": 7}
    assert state.keys() == STATE.keys()
    for key, value in STATE.items():
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], value.half().float())
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_transposed_and_shared_tensors_can_be_saved(tmp_path: Path) -> None:
    path, value = tmp_path / "w.safetensors", torch.rand(2, 3)
    save_checkpoint(path, {"a": value.T, "b": value}, {}, {})
    state = load_checkpoint(path)[1]
    assert torch.equal(state["a"], value.T.half().float())


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, STATE, {"old": True}, {})

    def torn(tensors: object, name: Path, metadata: object) -> None:
        Path(name).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", torn)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, STATE, {"old": False}, {})
    assert load_checkpoint(path)[0] == {"old": True}


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(STATE, path)
    with pytest.raises(EngineError, match=r"foreign.*config"):
        load_checkpoint(path)
    save_file(STATE, path, metadata={"config": "{not json"})
    with pytest.raises(EngineError, match="foreign"):
        load_checkpoint(path)
    path.write_bytes(b"\x80\x04 a pickle, say")
    with pytest.raises(EngineError, match=r"foreign.*damaged"):
        load_checkpoint(path)
    with pytest.raises(EngineError, match="no weights at"):
        load_checkpoint(tmp_path)


def test_load_state_names_every_problem() -> None:
    module = torch.nn.Linear(2, 3)
    with pytest.raises(EngineError) as caught:
        load_state(module, {"weight": torch.zeros(2, 3), "scale": torch.zeros(1)}, "some file")
    assert str(caught.value) == (
        "some file does not fit the model: missing bias; unexpected scale; "
        "weight has shape (2, 3), not (3, 2)"
    )
    load_state(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "some file")
    assert module.weight.eq(1).all() and module.bias.eq(1).all()
