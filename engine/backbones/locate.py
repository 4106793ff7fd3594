"""From what a user names to a model on disk, and the family that can read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ..bundle.manifest import MANIFEST, is_bundle, is_unfinished
from ..checkpoint import EMBEDDED, is_ours
from ..errors import ConfigError, EngineError
from ..hub import fetch_model, is_hub_id
from .base import Family

EMBEDDED_MODELS = ("mini",)


@dataclass(frozen=True)
class FamilyEntry:
    """`classes` are what `_class_name` may say in a folder's model_index.json or config.json.

    `place` is the module, relative to this package, whose FAMILY reads them.
    """

    name: str
    place: str
    classes: tuple[str, ...]

    def load(self) -> Family:
        return import_module(self.place, __package__).FAMILY


FAMILIES = {
    entry.name: entry
    for entry in (
        FamilyEntry("mini", ".mini", ()),
        FamilyEntry("bundle", "..bundle.family", ()),
        FamilyEntry(
            "wan",
            ".wan",
            ("WanPipeline", "WanVideoToVideoPipeline", "WanTransformer3DModel", "WanModel"),
        ),
        FamilyEntry(
            "ltx",
            ".families.ltx",
            (
                "LTXPipeline",
                "LTXImageToVideoPipeline",
                "LTXConditionPipeline",
                "LTXVideoTransformer3DModel",
            ),
        ),
        FamilyEntry(
            "hunyuan-video",
            ".families.hunyuan_video",
            ("HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel"),
        ),
        FamilyEntry("mochi", ".families.mochi", ("MochiPipeline", "MochiTransformer3DModel")),
        FamilyEntry(
            "cogvideox",
            ".families.cogvideox",
            (
                "CogVideoXPipeline",
                "CogVideoXVideoToVideoPipeline",
                "CogVideoXTransformer3DModel",
            ),
        ),
        FamilyEntry(
            "cosmos",
            ".families.cosmos",
            (
                "Cosmos2VideoToWorldPipeline",
                "Cosmos2_5_PredictBasePipeline",
                "CosmosTransformer3DModel",
            ),
        ),
        FamilyEntry(
            "hunyuan-video-1.5",
            ".families.hunyuan_video15",
            ("HunyuanVideo15Pipeline", "HunyuanVideo15Transformer3DModel"),
        ),
        FamilyEntry(
            "sana-video",
            ".families.sana_video",
            ("SanaVideoPipeline", "SanaVideoTransformer3DModel"),
        ),
        FamilyEntry(
            "skyreels-v2",
            ".families.skyreels_v2",
            (
                "SkyReelsV2Pipeline",
                "SkyReelsV2DiffusionForcingPipeline",
                "SkyReelsV2Transformer3DModel",
            ),
        ),
        FamilyEntry(
            "kandinsky5",
            ".families.kandinsky5",
            ("Kandinsky5T2VPipeline", "Kandinsky5Transformer3DModel"),
        ),
        FamilyEntry("ltx2", ".families.ltx2", ("LTX2Pipeline", "LTX2VideoTransformer3DModel")),
        FamilyEntry(
            "motif-video",
            ".families.motif_video",
            ("MotifVideoPipeline", "MotifVideoTransformer3DModel"),
        ),
        FamilyEntry(
            "easyanimate",
            ".families.easyanimate",
            ("EasyAnimatePipeline", "EasyAnimateTransformer3DModel"),
        ),
    )
}


class Located(NamedTuple):
    family: str
    path: Path

    def load(self) -> Family:
        return FAMILIES[self.family].load()


def locate(name: str) -> Located:
    """Find the model called `name`: an embedded one, a file, a folder, or an id on the hub.

    ConfigError for a name that is none of these, EngineError for files of no known family.
    """
    if name in EMBEDDED_MODELS:
        return Located(name, EMBEDDED / f"{name}.safetensors")
    path = Path(name)
    if path.suffix == ".safetensors":
        return Located("mini" if is_ours(path) else "wan", path)
    if path.is_dir():
        return Located(_family_of(path), path)
    if is_hub_id(name):
        path = fetch_model(name)
        return Located(_family_of(path), path)
    if path.exists():
        raise ConfigError(
            f"{name} is no backbone: a .safetensors file or a folder of a model is expected"
        )
    near = get_close_matches(name, EMBEDDED_MODELS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"unknown backbone {name!r}: {hint}embedded are {', '.join(EMBEDDED_MODELS)}; a path or "
        "a hub id OWNER/NAME is taken as well"
    )


def _family_of(folder: Path) -> str:
    if is_bundle(folder):
        return "bundle"
    for file, name in _class_names(folder):
        for entry in FAMILIES.values():
            if name in entry.classes:
                return entry.name
        known = ", ".join(sorted(c for entry in FAMILIES.values() for c in entry.classes))
        raise EngineError(f"{file} names the class {name!r}, which is not known: known are {known}")
    if is_unfinished(folder):
        raise EngineError(
            f"{folder} has compiled parts and no {MANIFEST}, which an export writes last: export "
            "it again"
        )
    raise EngineError(
        f"{folder} is no folder of a model: neither model_index.json nor config.json is in it"
    )


def _class_names(folder: Path) -> Iterator[tuple[Path, str]]:
    """What the folder says it is: a pipeline, a transformer alone, or one expert of two."""
    places = ("model_index.json", "config.json", "low_noise_model/config.json")
    for file in (folder / place for place in places):
        if file.is_file():
            try:
                yield file, str(json.loads(file.read_text())["_class_name"])
            except (ValueError, KeyError, TypeError) as error:
                raise EngineError(f"{file} names no class: {error!r}") from error
