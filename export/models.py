"""The models of a recipe, loaded one after the other: their stages, and what a manifest says of
them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.backbones import load_backbone
from ..engine.backbones.base import BackboneFacts
from ..engine.bundle.facts import to_json
from ..engine.restorer import Restorer
from ..engine.sr import load_sr
from ..engine.text.embeds import write_embeds
from .calibrate import Calibration, calibrate
from .codec import codec_model, codec_stages, open_codec
from .recipe import Recipe
from .stage import Stage
from .stages import backbone_model, backbone_stages, sr_stage

PROMPTS = "prompts.safetensors"

Models = dict[str, dict[str, Any]]


def calibrated(recipe: Recipe) -> Calibration | None:
    """What fp8 needs to know of the backbone; None for another precision.

    The clip is restored as runs of the bundle will restore theirs.  InputError where it cannot be
    read.
    """
    clip, facts = recipe.request.calibrate, recipe.facts
    if clip is None or facts is None:
        return None
    bucket = facts.buckets[0]
    config = replace(
        recipe.config, sr="none", chunk=bucket.frames, tile=(bucket.width, bucket.height)
    )
    return calibrate(Restorer.load(config), [clip], bucket.frames)


def stages_of(recipe: Recipe, folder: Path, models: Models) -> Iterator[Stage]:
    """All stages of a bundle; `models` is filled on the way, and prompts are written to `folder`.

    A model is given up before the next one is loaded.
    """
    if recipe.facts is not None:
        yield from _backbone(recipe, recipe.facts, folder, models)
        yield from _codec(recipe, models)
    if "sr" in recipe.sources:
        yield from _sr(recipe, models)


def _backbone(
    recipe: Recipe, facts: BackboneFacts, folder: Path, models: Models
) -> Iterator[Stage]:
    backbone = load_backbone(recipe.config, recipe.device, recipe.dtype)
    if recipe.prompts is not None:
        write_embeds(folder / PROMPTS, *recipe.prompts)
    models["backbone"] = backbone_model(backbone, recipe.text_tokens) | {
        "facts": to_json(facts),
        "prompts": None if recipe.prompts is None else PROMPTS,
        "source": recipe.sources["backbone"].describe(),
    }
    yield from backbone_stages(backbone, facts.buckets, recipe.text_tokens)


def _codec(recipe: Recipe, models: Models) -> Iterator[Stage]:
    codec = open_codec(recipe.config, recipe.device, recipe.dtype).codec
    tile = recipe.codec_tile
    models["codec"] = codec_model(codec, tile or (0, 0))
    if tile is not None:
        models["codec"]["source"] = recipe.sources["codec"].describe()
        yield from codec_stages(codec, [tile])


def _sr(recipe: Recipe, models: Models) -> Iterator[Stage]:
    model = load_sr(recipe.request.sr, recipe.device, recipe.dtype)
    models["sr"] = {"facts": to_json(model.facts), "source": recipe.sources["sr"].describe()}
    yield sr_stage(model)
