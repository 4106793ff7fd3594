"""A UMT5 of two layers with a tokenizer of its own, as diffusers lays a model out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

D_MODEL = 24
TEXTS = [
    "a sharp and clean video of high quality, detailed & natural",
    "blurry, noisy, compressed: artefacts everywhere",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache is not touched."""
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def umt5_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only read; tests that change it take `umt5_folder`."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model")
    _tokenizer().save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=100, d_model=D_MODEL, d_kv=8, d_ff=32, num_layers=2, num_heads=3
    )
    encoder = transformers.UMT5EncoderModel(config)
    for parameter in encoder.parameters():  # the library's own are too even to tell much
        torch.nn.init.normal_(parameter, std=0.5)
    encoder.save_pretrained(folder / "text_encoder")
    return folder


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
