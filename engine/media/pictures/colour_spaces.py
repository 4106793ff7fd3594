"""Colour spaces by name, of the OpenColorIO configuration that OpenImageIO has built in.

Networks see one of two spaces: the display code of sRGB, or, for spaces that hold more light than
white, linear light of the same primaries under the curve of `tone.py`.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

import numpy as np
import OpenImageIO as oiio
import torch
from torch import Tensor

from ...errors import ConfigError

CONFIG = "ocio://default"
LINEAR = "Linear Rec.709 (sRGB)"
DISPLAY = "sRGB Encoded Rec.709 (sRGB)"
_SHORT = ("sRGB", "linear")  # what OpenImageIO calls them, whatever the configuration


def check_space(name: str) -> None:
    """ConfigError for a name or alias that the configuration lacks; it names the nearest."""
    names = _names()
    if name.lower() in names:
        return
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    shown = dict.fromkeys(names[match] for match in near) or dict.fromkeys(names.values())
    raise ConfigError(f"unknown colour space {name!r}; {'near' if near else 'known'}: "
                      f"{', '.join(shown)}")  # fmt: skip


@cache
def is_scene_light(name: str) -> bool:
    """Whether a space holds more light than white: linear ones, logarithms and PQ."""
    white = convert(torch.ones(3, 1, 1), name, LINEAR)
    return oiio.ColorConfig(CONFIG).isColorSpaceLinear(name) or float(white.max()) > 1.05


def model_space(linear: bool) -> str:
    return LINEAR if linear else DISPLAY


def convert(rgb: Tensor, source: str, target: str) -> Tensor:
    """RGB (3, H, W) float32 from one space to another; values outside of [0, 1] are kept."""
    source, target = (_names()[name.lower()] for name in (source, target))
    if source == target:
        return rgb
    pixels = oiio.ImageBuf(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()))
    done = oiio.ImageBufAlgo.colorconvert(pixels, source, target, False, colorconfig=CONFIG)
    if done.has_error:
        raise ConfigError(f"no way from {source!r} to {target!r}: {done.geterror()}")
    return torch.from_numpy(done.get_pixels(oiio.FLOAT)).permute(2, 0, 1).contiguous()


def same_space(one: str, other: str) -> bool:
    names = _names()
    return names[one.lower()] == names[other.lower()]


@cache
def _names() -> dict[str, str]:
    """Name of a space by each of its names, aliases and roles in lower case."""
    config = oiio.ColorConfig(CONFIG)
    roles = (*config.getRoles(), *_SHORT)
    return {role.lower(): config.resolve(role) for role in roles} | {
        alias.lower(): name
        for name in config.getColorSpaceNames()
        for alias in (*config.getAliases(name), name)
    }
