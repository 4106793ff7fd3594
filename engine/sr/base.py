"""What a super-resolution model is to the rest of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class SRFacts:
    """What is known of a super-resolution model before its weights are read.

    `window` is the number of frames that one output frame depends on; `recurrent` models keep
    state from frame to frame as well.  `halo` is the distance in input pixels over which an
    output pixel depends on its surroundings, so tiles that overlap by it join without a seam.
    `macs_per_pixel` counts multiply-accumulates per input pixel.
    """

    name: str
    scale: int
    parameters: int
    macs_per_pixel: int
    halo: int
    window: int = 1
    recurrent: bool = False
    multiple_of: int = 1
    value_range: tuple[float, float] = (0.0, 1.0)


class SuperResolver(Protocol):
    """A model on its device, ready to run."""

    facts: SRFacts

    def upscale(self, frames: Tensor) -> Tensor:
        """Enlarge frames by `facts.scale`.

        Parameters
        ----------
        frames : (T, 3, H, W) floating point, gamma-encoded RGB in [0, 1], on any device.

        Returns
        -------
        (T, 3, sH, sW) fp32 on the device of `frames`, in memory the caller owns.  Values may
        exceed [0, 1] slightly.  A frame's result does not depend, in any bit, on the frames that
        were passed with it.

        Raises
        ------
        ValueError : the shape is not (T, 3, H, W) with H, W >= 1, or the values are integers.
        OutOfMemory : of the stage "upscale".
        """
        ...
