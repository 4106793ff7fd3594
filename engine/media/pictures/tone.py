"""Scene light for networks that know display light: a reversible curve from [0, TOP] to [0, 1].

    y = E(x)                            x <= KNEE     E: the transfer function of sRGB
    y = E(KNEE) + a ln(1 + (x - KNEE) / SHOULDER)     above, a = E'(KNEE) SHOULDER

So mid-tones look as they do in the pictures that the networks were trained on, and the four stops
above white share what is left.  The curve is strictly monotone and has a continuous derivative;
`from_curve` is its inverse, to a relative 2e-6 in float32.  E is IEC 61966-2-1 with the constants
for which its two pieces meet smoothly (12.9232 and 0.0030399 where the standard rounds to 12.92
and 0.0031308).
"""

from __future__ import annotations

import math

from torch import Tensor, where

KNEE = 0.5
SHOULDER = 0.075

_BREAK = 0.055 / 1.4
_SLOPE = (1.055 / 2.4) ** 2.4 * (1.4 / 0.055) ** 1.4
_AT_KNEE = 1.055 * KNEE ** (1 / 2.4) - 0.055
_STRETCH = 1.055 / 2.4 * KNEE ** (1 / 2.4 - 1) * SHOULDER
TOP = KNEE + SHOULDER * math.expm1((1 - _AT_KNEE) / _STRETCH)


def encode(x: Tensor) -> Tensor:
    """Display code of linear light: E; straight on below 0."""
    power = 1.055 * x.clamp(min=0) ** (1 / 2.4) - 0.055
    return where(x * _SLOPE > _BREAK, power, x * _SLOPE)


def decode(y: Tensor) -> Tensor:
    """Linear light of a display code: the inverse of `encode`."""
    power = ((y.clamp(min=0) + 0.055) / 1.055) ** 2.4
    return where(y > _BREAK, power, y / _SLOPE)


def to_curve(x: Tensor) -> Tensor:
    """Linear light, any values, under the curve: below 0 for negative ones, above 1 beyond TOP."""
    shoulder = _AT_KNEE + _STRETCH * ((x.clamp(min=KNEE) - KNEE) / SHOULDER).log1p()
    return where(x > KNEE, shoulder, encode(x))


def from_curve(y: Tensor) -> Tensor:
    """Linear light of what `to_curve` gave."""
    shoulder = KNEE + SHOULDER * ((y.clamp(min=_AT_KNEE) - _AT_KNEE) / _STRETCH).expm1()
    return where(y > _AT_KNEE, shoulder, decode(y))
