"""What a bundle's backbone is conditioned on: tags, or text whose embeddings it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, EngineError
from ..text.embeds import Embeds, read_embeds
from .opened import OpenedBundle

NAME = "prompt_embeds"


def prompt_inputs(
    bundle: OpenedBundle, prompts: tuple[str, str], file: str | None
) -> dict[str, Tensor]:
    """The input of the condition's engine that `prompts`, of both branches, make: `tags` (2,), or
    `text` (2, L, D), of the embeddings in `file` where one is given.

    ConfigError for a prompt that the bundle does not hold.
    """
    model = bundle.manifest.models["backbone"]
    if model["tags"] is not None:
        return {"tags": _tags(model["tags"], prompts).to(bundle.device)}
    width = bundle.manifest.components["condition.0"].inputs["text"].shape[-1]
    embeds = read_embeds(_place(bundle.folder, model, prompts, file), {NAME: int(width)})
    text = torch.cat([_filled(part, model["text_tokens"]) for part in embeds])
    return {"text": text.to(bundle.device)}


def _tags(known: list[str], prompts: tuple[str, str]) -> Tensor:
    for tag in prompts:
        if tag not in known:
            raise ConfigError(
                f"the prompt of mini is a quality tag, one of {', '.join(known)}, not {tag!r}"
            )
    return torch.tensor([known.index(tag) for tag in prompts])


def _place(folder: Path, model: dict[str, Any], prompts: tuple[str, str], file: str | None) -> Path:
    if file is not None:
        return Path(file)
    if model["prompts"] is None:
        raise ConfigError(f"{folder} holds no prompts: give their embeddings (--prompt-embeds)")
    held = model["facts"]["prompt"], model["facts"]["negative_prompt"]
    for asked, has in zip(prompts, held, strict=True):
        if asked != has:
            raise ConfigError(
                f"{folder} has no text encoder, and holds the embeddings of {has!r}, not of "
                f"{asked!r}: embed it where the model is (`dtg-restore embed`) and give the file "
                "(--prompt-embeds)"
            )
    return folder / model["prompts"]


def _filled(embeds: Embeds, tokens: int) -> Tensor:
    """(1, tokens, D) fp32, filled up with zeros, as Wan's own encoder does."""
    text = embeds[NAME].float()
    if text.ndim != 3:
        raise EngineError(f"prompt embeddings of shape {tuple(text.shape)}: (1, L, D) is expected")
    if text.shape[1] > tokens:
        raise ConfigError(
            f"the prompt embeddings have {text.shape[1]} tokens: the bundle takes up to {tokens}"
        )
    return F.pad(text, (0, 0, 0, tokens - text.shape[1]))
