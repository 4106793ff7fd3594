"""What bundles decide of a run's settings: they were compiled for one device, in one precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..backbones.locate import locate
from ..config import RestoreConfig
from ..devices import DTYPES
from ..errors import ConfigError
from ..runtimes.engines import executor
from ..sr import SR
from .manifest import Manifest, is_bundle, read_manifest

# Setting of a backbone -> what it must be, and what the bundle has in its place.
FIXED = {
    "weights": ("auto", "weights in {precision}"),
    "offload": ("none", "all weights on the device"),
    "attention": ("auto", "its attention compiled in"),
    "vae": ("auto", "the codec {codec}"),
}


def settled(config: RestoreConfig) -> RestoreConfig:
    """`config` with the device, the precision and the codec's tile of its bundles where it leaves
    them open; unchanged where it names no bundle.

    ConfigError for a setting that a bundle contradicts: it names both.
    """
    bundles = _bundles(config)
    for folder, manifest in bundles.values():
        _check_shared(config, folder, manifest)
        if config.device == "auto":
            config = replace(config, device=manifest.device)
    if "backbone" not in bundles:
        return config
    _, manifest = bundles["backbone"]
    _check_backbone(config, manifest)
    tile = manifest.models.get("codec", {}).get("tile")
    return replace(
        config,
        dtype=manifest.precision if manifest.precision in DTYPES else "auto",
        vae_tile=tuple(tile) if tile else config.vae_tile,
    )


def _bundles(config: RestoreConfig) -> dict[str, tuple[Path, Manifest]]:
    """Those that the settings `backbone` and `sr` name; names of embedded models come first."""
    folders = {}
    if config.backbone != "none":
        found = locate(config.backbone)
        if found.family == "bundle":
            folders["backbone"] = found.path
    if config.sr not in SR and is_bundle(config.sr):
        folders["sr"] = Path(config.sr)
    return {setting: (folder, read_manifest(folder)) for setting, folder in folders.items()}


def opened_with(folder: Path) -> dict[str, str]:
    """The settings `backbone` and `sr` by which a run takes all that the bundle has.

    EngineError where it is no bundle.
    """
    models = read_manifest(folder).models
    # A relative path could be the name of an embedded model.
    chosen = {name: str(folder.absolute()) for name in ("backbone", "sr") if name in models}
    return {"backbone": "none"} | chosen


def _check_shared(config: RestoreConfig, folder: Path, manifest: Manifest) -> None:
    if config.device != "auto" and config.device.partition(":")[0] != manifest.device:
        raise ConfigError(
            f"device is {config.device!r}: {folder} was compiled for {manifest.device}"
        )
    if config.dtype not in ("auto", manifest.precision):
        raise ConfigError(
            f"dtype is {config.dtype!r}: {folder} was compiled in {manifest.precision}"
        )


def _check_backbone(config: RestoreConfig, manifest: Manifest) -> None:
    folder, codec = config.backbone, manifest.models.get("codec", {})
    names = {"precision": manifest.precision, "codec": codec.get("kind", "none")}
    for setting, (served, has) in FIXED.items():
        value = getattr(config, setting)
        if value != served:
            raise ConfigError(f"{setting} is {value!r}: {folder} has {has.format(**names)}")
    tile = codec.get("tile")
    if config.vae_tile is not None and (tile is None or tuple(tile) != tuple(config.vae_tile)):
        has = "no codec" if tile is None else "a codec for tiles of {}x{}".format(*tile)
        raise ConfigError(f"vae_tile is {config.vae_tile}: {folder} has {has}")
    executor(config.runtime, manifest.runtime)
