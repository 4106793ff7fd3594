"""The file of prompt embeddings and their cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.text.embeds import (
    Embeds,
    PromptSource,
    read_embeds,
    to_device,
    write_embeds,
)

SHAPES = {"prompt_embeds": 4, "mask": 0}


def embeds(text: str, width: int = 4) -> Embeds:
    """Tells texts apart; views of one batch, as encoders return them."""
    batch = torch.full((2, 3, width), float(len(text)))
    return {"prompt_embeds": batch[:1], "mask": torch.ones(1, 3, dtype=torch.int64)}


class Encoder:
    """Counts what it is asked for."""

    def __init__(self, width: int = 4):
        self.asked: list[str] = []
        self.width = width

    def __call__(self, prompts: Sequence[str]) -> list[Embeds]:
        self.asked += prompts
        return [embeds(text, self.width) for text in prompts]


def equal(a: Embeds, b: Embeds) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_file_keeps_both_prompts(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    write_embeds(path, embeds("good"), embeds("worse"))
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]
    prompt, negative = read_embeds(path, SHAPES)
    assert equal(prompt, embeds("good")) and equal(negative, embeds("worse"))
    assert read_embeds(path, {"mask": 3})[0].keys() == {"mask"}


def test_file_of_one_text_twice(tmp_path: Path) -> None:
    same = embeds("same")
    write_embeds(tmp_path / "e.safetensors", same, same)
    assert equal(*read_embeds(tmp_path / "e.safetensors", SHAPES))


def test_writing_refuses(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    write_embeds(path, embeds("a"), embeds("b"))
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists"):
        write_embeds(path, embeds("c"), embeds("d"))
    assert path.read_bytes() == before
    write_embeds(path, embeds("ccc"), embeds("d"), overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(InputError, match="no folder"):
        write_embeds(tmp_path / "absent" / "e.safetensors", embeds("a"), embeds("b"))
    with pytest.raises(InputError, match="cannot write"):
        write_embeds("/dev/full/e.safetensors", embeds("a"), embeds("b"))


GOOD = {"prompt_embeds": torch.ones(1, 3, 4), "mask": torch.ones(1, 3, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("prompt_embeds", None, "there is no prompt_embeds"),
        ("negative_mask", None, "there is no negative_mask"),
        ("prompt_embeds", torch.ones(1, 3, 5), r"\(1, 3, 5\), not \(1, ..., 4\)"),
        ("negative_prompt_embeds", torch.ones(2, 3, 4), r"negative_prompt_embeds has the shape"),
        ("prompt_embeds", torch.ones(1, 0, 4), r"\(1, 0, 4\)"),
        ("mask", torch.tensor(1.0), r"mask has the shape \(\)"),
        ("prompt_embeds", torch.full((1, 3, 4), torch.nan), "not finite"),
    ],
)
def test_files_of_another_model(
    tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    path = tmp_path / "e.safetensors"
    content = GOOD | {f"negative_{key}": 2 * value for key, value in GOOD.items()}
    content = {key: value for key, value in (content | {name: tensor}).items() if value is not None}
    save_file(content, path)
    with pytest.raises(EngineError, match=message) as raised:
        read_embeds(path, SHAPES)
    assert str(path) in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors here")
    write_embeds(tmp_path / "e.safetensors", embeds("a"), embeds("b"))
    (tmp_path / "cut").write_bytes((tmp_path / "e.safetensors").read_bytes()[:-8])
    for name in ("text", "cut", "absent", "."):
        with pytest.raises(EngineError, match="no file of prompt embeddings"):
            read_embeds(tmp_path / name, SHAPES)


def test_a_file_decides_alone(tmp_path: Path) -> None:
    path, encoder = tmp_path / "e.safetensors", Encoder()
    write_embeds(path, embeds("from the file"), embeds("this too"))
    found = PromptSource(SHAPES, encoder, "id", str(path)).get("a", "b")
    assert equal(found[0], embeds("from the file")) and encoder.asked == []


def test_neither_file_nor_encoder() -> None:
    with pytest.raises(ConfigError, match="--prompt-embeds"):
        PromptSource(SHAPES, None, "").get("a", "b")


def test_cache_spares_the_encoder(own_cache: Path) -> None:
    encoder = Encoder()
    first = PromptSource(SHAPES, encoder, "id").get("good", "worse")
    again = PromptSource(SHAPES, encoder, "id").get("good", "worse")
    assert encoder.asked == ["good", "worse"]
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    PromptSource(SHAPES, encoder, "id").get("good", "other")  # the new text alone
    assert encoder.asked == ["good", "worse", "other"]
    PromptSource(SHAPES, encoder, "another id").get("good", "worse")
    assert encoder.asked[3:] == ["good", "worse"]
    entries = list((own_cache / "prompts").iterdir())
    assert len(entries) == 5 and all(e.suffix == ".safetensors" for e in entries)


def test_one_text_is_encoded_once() -> None:
    encoder = Encoder()
    PromptSource(SHAPES, encoder, "id").get("same", "same")
    assert encoder.asked == ["same"]


def damage_cut(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-8])


def damage_empty(entry: Path) -> None:
    entry.write_bytes(b"")


def damage_width(entry: Path) -> None:
    save_file(embeds("x", width=5) | {"prompt_embeds": torch.ones(1, 3, 5)}, entry)


def damage_names(entry: Path) -> None:
    save_file({"other": torch.ones(1, 3, 4)}, entry)


def damage_folder(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_empty, damage_width, damage_names, damage_folder]
)
def test_bad_entries_are_made_again(own_cache: Path, damage) -> None:
    encoder = Encoder()
    source = PromptSource(SHAPES, encoder, "id")
    source.get("a", "a")
    (entry,) = (own_cache / "prompts").iterdir()
    damage(entry)
    assert equal(source.get("a", "a")[0], embeds("a"))
    assert encoder.asked == ["a", "a"]
    source.get("a", "a")
    assert (len(encoder.asked) == 2) is entry.is_file()  # repaired, where that is possible


def test_cache_that_cannot_be_written(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/dev/null")):
        monkeypatch.setenv("DTG_CACHE", str(place))
        assert equal(PromptSource(SHAPES, encoder, "id").get("a", "bb")[1], embeds("bb"))
    assert len(encoder.asked) == 4
    monkeypatch.setenv("DTG_CACHE", str(own_cache))
    folder = own_cache / "prompts"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    assert equal(PromptSource(SHAPES, encoder, "id").get("a", "bb")[0], embeds("a"))
    assert os.geteuid() == 0 or list(folder.iterdir()) == []  # root may write everywhere


def test_a_full_disk_leaves_no_partial_entry(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: Embeds, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dtg_restore.engine.text.embeds.save_file", full)
    assert equal(PromptSource(SHAPES, Encoder(), "id").get("a", "bb")[0], embeds("a"))
    assert list((own_cache / "prompts").iterdir()) == []


def test_encoder_of_another_model(own_cache: Path) -> None:
    with pytest.raises(EngineError, match="text encoder does not fit"):
        PromptSource(SHAPES, Encoder(width=5), "id").get("a", "b")
    assert not own_cache.exists()


def test_writers_at_the_same_time(own_cache: Path) -> None:
    texts = [str(i % 3) * (i % 3 + 1) for i in range(12)]
    start = threading.Barrier(len(texts))
    found: dict[int, Embeds] = {}

    def work(index: int) -> None:
        start.wait()
        found[index] = PromptSource(SHAPES, Encoder(), "id").get(texts[index], texts[index])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(found[i], embeds(text)) for i, text in enumerate(texts))
    assert len(list((own_cache / "prompts").iterdir())) == 3


def test_to_device_casts_floats_alone() -> None:
    found = to_device(embeds("abc"), torch.device("cpu"), torch.bfloat16)
    assert found["prompt_embeds"].dtype == torch.bfloat16
    assert found["mask"].dtype == torch.int64
