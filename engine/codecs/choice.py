"""Which codec serves latents of Wan: the model's own, a small one for previews, or one by path."""

from __future__ import annotations

from pathlib import Path

import torch

from ..config import RestoreConfig
from ..errors import ConfigError, EngineError
from .base import Codec, CodecFacts
from .convolution import MakeConvolution, fastest
from .tiny import TinyCodec, load_tiny
from .wan import WanCodec, load_wan_vae

TINY = ("taew2_1.safetensors", "taew2_1.pth")
ORIGINAL = ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth")


def load_wan_codec(
    model: Path, facts: CodecFacts, config: RestoreConfig, device: torch.device, dtype: torch.dtype
) -> Codec:
    """The codec that `config.vae` names for the model at `model`, whose latents are `facts`.

    "auto" looks for vae/ in the model's folder and beside it, "tiny" for taew2_1 there; a path is a
    folder with a VAE of diffusers, an original Wan VAE file, or a file of the tiny one.
    """
    source = find_wan_codec(model, config.vae)
    return open_wan_codec(source, facts, device, dtype, config.vae_tile)


def open_wan_codec(
    source: Path,
    facts: CodecFacts,
    device: torch.device,
    dtype: torch.dtype,
    tile: tuple[int, int] | None = None,
    convolution: MakeConvolution = fastest,
) -> WanCodec | TinyCodec:
    """The codec in `source`, which must make latents as `facts` say; see `load_wan_vae`."""
    codec: WanCodec | TinyCodec
    if source.name in TINY or "tae" in source.stem.lower():
        codec = load_tiny(source, device, dtype)
    else:
        codec = load_wan_vae(source, device, dtype, tile, convolution)
    if codec.facts.channels != facts.channels:
        raise EngineError(
            f"{source} makes latents of {codec.facts.channels} channels: the backbone works on "
            f"{facts.channels}"
        )
    return codec


def find_wan_codec(model: Path, vae: str) -> Path:
    """Where the codec `vae` of the model at `model` lies; ConfigError where it is absent."""
    folder = model if model.is_dir() else model.parent
    beside = [folder, folder / "vae", folder.parent / "vae"]
    if vae == "tiny":
        return _first(
            [place / name for place in beside for name in TINY],
            f"vae is 'tiny': {' or '.join(TINY)} is expected in {folder}; a path is taken as well",
        )
    if vae == "auto":
        wanted = [place for place in beside[1:] if (place / "config.json").is_file()]
        wanted += [folder / name for name in ORIGINAL]
        return _first(wanted, f"vae is 'auto': {folder} has no vae/; --vae takes the path of one")
    path = Path(vae)
    if (path / "vae").is_dir():
        return path / "vae"
    return _first([path], f"vae is {vae!r}: it must be auto, tiny or a path that exists")


def _first(places: list[Path], problem: str) -> Path:
    for place in places:
        if place.exists():
            return place
    raise ConfigError(problem)
