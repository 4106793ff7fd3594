"""The codec of a bundle: the engine's own, with compiled parts in the place of its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..codecs.base import Codec
from ..codecs.pixels import PixelCodec
from ..codecs.tiny import TinyCodec
from ..codecs.wan import WanCodec
from ..codecs.wan_config import WanVaeConfig
from ..errors import EngineError
from ..runtimes.base import Engine
from .facts import codec_facts
from .vae import EngineVae


def bundle_codec(
    model: Mapping[str, Any], engines: Mapping[str, Engine], device: torch.device
) -> Codec:
    """The codec that a manifest describes.

    Parameters
    ----------
    model : `models["codec"]` of the manifest.
    engines : by the names of components; those of the codec's tile are used.

    Raises
    ------
    EngineError : the description is of no codec, or damaged.
    """
    try:
        if model["kind"] == "pixels":
            return PixelCodec(device)
        width, height = model["tile"]
        vae = EngineVae(engines, (height, width))
        if model["kind"] == "wan":
            config = WanVaeConfig(**{name: _value(v) for name, v in model["config"].items()})
            return WanCodec(vae, config, device, torch.float32, (width, height))
        if model["kind"] == "tiny":
            return TinyCodec(vae, codec_facts(model["facts"]), device, torch.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"the bundle's description of its codec is damaged: {error!r}") from error
    raise EngineError(f"the bundle's codec is of the kind {model['kind']!r}: it is not known")


def _value(value: Any) -> Any:
    """JSON has lists where the configuration has tuples."""
    return tuple(value) if isinstance(value, list) else value
