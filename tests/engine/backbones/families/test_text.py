"""Prompts through the text encoder of a family's own folder."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.backbones.families.text import text_pipeline
from dtg_restore.engine.errors import ConfigError, EngineError
from dtg_restore.engine.schedule import Node

CPU = torch.device("cpu")
# By family: the width of its text encoder, and the class of a second one.  Small ones of other
# classes stand in: a pipeline asks no more of an encoder than its hidden states.
ENCODERS = {
    "ltx": (12, None),
    "hunyuan-video": (16, "CLIPTextModel"),
    "mochi": (16, None),
    "cogvideox-rotary": (16, None),
    "cosmos": (16, None),
    "cosmos-2.5": (8, None),
    "hunyuan-video-1.5": (16, "T5EncoderModel"),
    "sana-video": (16, None),
    "skyreels-v2": (16, None),
    "kandinsky5": (16, "CLIPTextModel"),
    "ltx2": (16, None),
    "motif-video": (16, None),
    "easyanimate": (16, None),
}
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }} {% endfor %}{% endif %}{% endfor %}"
)
PROMPTS = ("sharp clean " * 60, "blurry " * 120)  # longer than a template that is cut off
LTX = pytest.mark.parametrize("saved", ["ltx"], indirect=True)
NODES = [Node(0.5, 0.3, 2.0, 2.0, -1.0)]


def add_encoder(folder: Path, suffix: str, class_name: str, width: int) -> None:
    """A text encoder of three layers, and a tokenizer of three words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "sharp": 3, "clean": 4, "blurry": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
    ).save_pretrained(folder / f"tokenizer{suffix}")
    torch.manual_seed(0)
    config: Any = transformers.T5Config(
        vocab_size=6, d_model=width, d_kv=4, d_ff=8, num_layers=3, num_heads=2
    )
    if class_name == "CLIPTextModel":
        config = transformers.CLIPTextConfig(
            vocab_size=6,
            hidden_size=width,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=1,
        )
    encoder = getattr(transformers, class_name)(config)
    encoder.save_pretrained(folder / f"text_encoder{suffix}")
    index = json.loads((folder / "model_index.json").read_text())
    index[f"tokenizer{suffix}"] = ["transformers", "PreTrainedTokenizerFast"]
    index[f"text_encoder{suffix}"] = ["transformers", class_name]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture
def complete(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A family with its text encoders, and a cache of its own."""
    monkeypatch.setenv("DTG_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(saved.folder, tmp_path / "model"))
    width, second = ENCODERS[saved.case.name]
    add_encoder(folder, "", "T5EncoderModel", width)
    if second is not None:
        add_encoder(folder, "_2", second, 8)
    return replace(saved, folder=folder)


@contextmanager
def encoding(pipeline: Any, folder: Path) -> Iterator[None]:
    """Lends the text parts in `folder` to diffusers' own pipeline."""
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    parts = {
        name: getattr(transformers, entry[1]).from_pretrained(folder / name)
        for name, entry in index.items()
        if name.startswith(("text_encoder", "tokenizer"))
    }
    pipeline.register_modules(**parts)
    yield
    pipeline.register_modules(**dict.fromkeys(parts))


@pytest.mark.parametrize("saved", ENCODERS, indirect=True)
def test_a_prompt_gives_what_the_pipeline_makes_of_it(complete: Any) -> None:
    backbone, pipeline = complete.backbone(), complete.pipeline
    context = backbone.prepare(*PROMPTS, NODES)
    x = complete.case.noise(0)
    with torch.no_grad(), encoding(pipeline, complete.folder):
        expected, times = complete.case.call(pipeline, x, {"prompt": PROMPTS[0]}, "latent")
    results = {}
    for branch in ("cond", "uncond"):
        results[branch] = x
        for t, t_next in pairwise(times):
            v = backbone.velocity(results[branch], torch.tensor([t]), context.at(0, [branch], 1))
            results[branch] = results[branch] + (t_next - t) * v
    scale = expected.abs().max()
    assert (results["cond"] - expected).abs().max() <= 1e-5 * scale
    assert (results["uncond"] - expected).abs().max() > 1e-4 * scale


@LTX
def test_the_encoder_is_freed_and_asked_once(
    complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import T5EncoderModel

    load, loaded = T5EncoderModel.from_pretrained, []

    def counted(*args: Any, **options: Any) -> Any:
        encoder = load(*args, **options)
        loaded.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", counted)
    for _ in range(2):
        complete.backbone().prepare("sharp", "blurry", NODES)
    assert len(loaded) == 1 and loaded[0]() is None
    os.utime(complete.folder / "text_encoder" / "model.safetensors", ns=(1, 1))
    complete.backbone().prepare("sharp", "blurry", NODES)
    assert len(loaded) == 2


@LTX
def test_a_damaged_encoder_is_named(complete: Any) -> None:
    (complete.folder / "text_encoder" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(EngineError, match=str(complete.folder)):
        complete.backbone().prepare("sharp", "blurry", NODES)


def test_without_an_encoder_embeddings_are_asked_for(saved: Any) -> None:
    with pytest.raises(ConfigError, match="--prompt-embeds"):
        saved.backbone().prepare("sharp", "blurry", NODES)


def test_every_pipeline_can_be_had_without_its_big_parts(saved: Any) -> None:
    with_vae = saved.family.adapter.encoding.with_vae
    pipeline = text_pipeline(saved.folder, with_vae, CPU, torch.float32)
    assert type(pipeline) is type(saved.pipeline) and pipeline.transformer is None
