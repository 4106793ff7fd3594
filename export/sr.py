"""The stage of a super-resolution network."""

from __future__ import annotations

import torch

from ..engine.errors import ConfigError, EngineError
from ..engine.sr.base import SuperResolver
from ..engine.sr.frames import TILE, FrameSR
from .stage import OpenAxis, Stage

NAME, INPUT, OUTPUT = "upscale", "frames", "upscaled"


def sr_stage(model: SuperResolver) -> Stage:
    """A tile of a frame, with what it sees around it, of any height and width.

    Raises
    ------
    EngineError : the model is no network that sees single frames.
    """
    model = single_frames(model)
    return upscale_stage(model, _side(model, model.tile), _side(model, model.tile), dynamic=True)


def upscale_stage(model: FrameSR, height: int, width: int, dynamic: bool) -> Stage:
    """`frames` (1, 3, H, W) to `upscaled` (1, 3, sH, sW); a dynamic one leaves H and W open, and
    the sizes are then an example.  ConfigError for sizes that the network does not take."""
    m, smallest = model.facts.multiple_of, 2 if dynamic else 1  # a traced size of 1 stays constant
    if min(height, width) < smallest or height % m or width % m:
        raise ConfigError(
            f"height and width must be multiples of {m}, at least {smallest}: {height} x {width}"
        )
    high = _side(model, max(TILE.values()))
    axes = {
        axis: OpenAxis(name, m, size, max(size, high), m)
        for axis, name, size in ((2, "height", height), (3, "width", width))
    }
    frames = torch.zeros(1, 3, height, width, device=model.device)
    open_axes = {INPUT: axes} if dynamic else {}
    return Stage(NAME, model.module, {INPUT: frames}, (OUTPUT,), open_axes)


def single_frames(model: SuperResolver) -> FrameSR:
    """EngineError unless it is a network that sees single frames."""
    if not isinstance(model, FrameSR):
        raise EngineError(f"{model.facts.name} is no network that sees single frames: not exported")
    return model


def _side(model: FrameSR, tile: int) -> int:
    """Of a tile and its surroundings."""
    m = model.facts.multiple_of
    return -(-(tile + 2 * model.facts.halo) // m) * m
