"""UMT5: the same embeddings as diffusers' own pipeline, and a clear error for every bad folder."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.text import umt5
from dtg_restore.engine.text.embeds import PromptSource
from dtg_restore.engine.text.umt5 import clean, umt5_encoder

CPU, FP32 = torch.device("cpu"), torch.float32
SHARP = "a sharp video of high quality"
PROMPTS = [
    SHARP,
    "  blurry,\n\tnoisy &amp;amp; compressed  ",
    "",
    "unseen signs: é ☃ 中",
    "high quality " * 400,  # beyond 512 tokens
]


@pytest.fixture
def umt5_folder(umt5_source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(umt5_source, tmp_path / "model")


def encode(folder: Path, *prompts: str, dtype: torch.dtype = FP32) -> list[torch.Tensor]:
    encoder, _ = umt5_encoder(folder, CPU, dtype)
    assert encoder is not None
    return [embeds["prompt_embeds"] for embeds in encoder(prompts)]


def test_equals_the_pipeline_of_diffusers(umt5_source: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    import transformers

    pipeline = diffusers.WanPipeline(
        tokenizer=transformers.AutoTokenizer.from_pretrained(umt5_source / "tokenizer"),
        text_encoder=transformers.UMT5EncoderModel.from_pretrained(umt5_source / "text_encoder"),
        vae=diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1, temperal_downsample=[False] * 3
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(
            PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512, device=CPU
        )
    found = torch.cat(encode(umt5_source, *PROMPTS))
    assert found.shape == expected.shape == (len(PROMPTS), 512, 24)
    assert (found - expected).abs().max() <= 1e-5 < expected.abs().max()


def test_zero_beyond_the_tokens(umt5_source: Path) -> None:
    short, empty, long = encode(umt5_source, SHARP, "", "high quality " * 400)
    length = [int((e[0] != 0).any(-1).nonzero().max()) + 1 for e in (short, empty, long)]
    assert 4 < length[0] < 40 and length[1] == 1 and length[2] == 512
    assert not short[:, length[0] :].any()


def test_a_prompt_does_not_depend_on_the_others(umt5_source: Path) -> None:
    together = encode(umt5_source, *PROMPTS)
    assert torch.equal(encode(umt5_source, PROMPTS[1])[0], together[1])


def test_half_precision(umt5_source: Path) -> None:
    (half,), (full,) = encode(umt5_source, SHARP, dtype=torch.bfloat16), encode(umt5_source, SHARP)
    assert half.dtype == torch.bfloat16
    error = (half.float() - full).norm() / full.norm()
    assert 0 < error < 0.05


def test_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clean(" a &amp;lt; b\u00a0\n c ") == "a < b c"
    monkeypatch.setattr(umt5, "find_spec", lambda name: None)  # without ftfy
    assert clean(" a &amp;lt; b\u00a0\n c ") == "a < b c"


def test_says_nothing_and_frees_the_network(
    umt5_source: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    alive = []
    load = umt5._load_network

    def watched(*arguments):
        from weakref import ref

        network = load(*arguments)
        alive.append(ref(network))
        return network

    monkeypatch.setattr(umt5, "_load_network", watched)
    theirs = transformers.utils.logging
    before = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    encode(umt5_source, SHARP)
    assert [network() for network in alive] == [None]
    assert (theirs.get_verbosity(), theirs.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_identity(umt5_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = umt5_encoder(umt5_folder, CPU, FP32)[1]
    assert umt5_encoder(umt5_folder, CPU, FP32)[1] == identity
    seen = {identity, umt5_encoder(umt5_folder, CPU, torch.bfloat16)[1]}
    tokenizer = umt5_folder / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    seen.add(umt5_encoder(umt5_folder, CPU, FP32)[1])
    weights = umt5_folder / "text_encoder" / "model.safetensors"
    size = weights.stat().st_size
    save_file({k: 2 * v for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    assert weights.stat().st_size == size
    seen.add(umt5_encoder(umt5_folder, CPU, FP32)[1])
    installed = umt5.find_spec("ftfy")
    monkeypatch.setattr(umt5, "find_spec", lambda name: None if installed else umt5)
    seen.add(umt5_encoder(umt5_folder, CPU, FP32)[1])
    assert len(seen) == 5


def test_another_place_has_the_same_identity(umt5_source: Path, umt5_folder: Path) -> None:
    identities = {umt5_encoder(f, CPU, FP32)[1] for f in (umt5_source, umt5_folder)}
    assert len(identities) == 1  # copytree keeps the times


def test_cache_spares_the_encoder(umt5_folder: Path) -> None:
    source = PromptSource({"prompt_embeds": 24}, *umt5_encoder(umt5_folder, CPU, FP32))
    first = source.get(SHARP, "")
    (umt5_folder / "text_encoder" / "config.json").unlink()
    assert torch.equal(source.get(SHARP, "")[0]["prompt_embeds"], first[0]["prompt_embeds"])
    with pytest.raises(EngineError):
        source.get("another text", "")


def test_folder_without_a_text_encoder(tmp_path: Path) -> None:
    assert umt5_encoder(tmp_path, CPU, FP32) == (None, "")


def drop_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def drop_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")


def drop_weights(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_tensor(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    del state["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    save_file(state, weights, metadata={"format": "pt"})


def add_a_tensor(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    save_file(
        load_file(weights) | {"decoder.odd": torch.ones(1)}, weights, metadata={"format": "pt"}
    )


def reshape_a_tensor(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights) | {"encoder.final_layer_norm.weight": torch.ones(7)}
    save_file(state, weights, metadata={"format": "pt"})


def break_the_config(folder: Path) -> None:
    (folder / "text_encoder" / "config.json").write_text("{")


def break_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (drop_tokenizer, "has no tokenizer/"),
        (drop_encoder, "has no text_encoder/"),
        (drop_weights, "text_encoder"),
        (cut_weights, "text_encoder"),
        (drop_a_tensor, "missing encoder.block.1.layer.1.DenseReluDense.wo.weight"),
        (add_a_tensor, "unexpected decoder.odd"),
        (reshape_a_tensor, "encoder.final_layer_norm.weight"),
        (break_the_config, "text_encoder"),
        (break_the_tokenizer, "tokenizer"),
    ],
)
def test_damaged_folders(umt5_folder: Path, damage, names: str, capfd) -> None:
    import transformers

    damage(umt5_folder)
    said = Records()
    transformers.utils.logging.add_handler(said)  # its own keeps the stderr of its import
    with pytest.raises(EngineError) as raised:
        encode(umt5_folder, SHARP)
    transformers.utils.logging.remove_handler(said)
    assert said.records == []
    assert names in str(raised.value) and str(umt5_folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_without_transformers(umt5_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EngineError, match=r"pip install 'dtg-restore\[wan\]'"):
        encode(umt5_source, SHARP)
