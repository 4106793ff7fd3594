"""The facts of the embedded backbone, and what models that take text have in common.

The guidance defaults of `mini` are measured, not the paper's: see bench/results/sweep_mini.json.
"""

from __future__ import annotations

from ..codecs.pixels import PIXELS
from ..config import DTG
from .base import BackboneFacts

MINI = BackboneFacts(
    name="mini",
    codec=PIXELS,
    patch=(2, 8, 8),
    parameters=4_002_624,
    width=192,
    depth=6,
    ffn_width=768,
    context_tokens=4,
    live_channels=24,
    chunk=16,
    overlap=4,
    tile=(64, 64),
    tile_overlap=8,
    tile_batch=4,
    head_dim=32,
    defaults=DTG(t_start=0.16, steps=2, delta0=0.15, alpha0=1.2, kappa=4.0, space="x0"),
    prompt="clean",
    negative_prompt="null",
)

# The two conditions of models that take text.  Nothing is said of what is in the picture: that
# stands in the input.
RESTORATION_PROMPT = (
    "A sharp, clean, high-definition video with fine natural detail, correct anatomy, stable "
    "geometry and smooth, consistent motion."
)
RESTORATION_NEGATIVE = (
    "blurry, low resolution, compression artifacts, noise, distorted, deformed, extra limbs, "
    "malformed face and hands, warping, flicker, jitter, ghosting, inconsistent motion"
)

# Not measured: no weights of these models were at hand.  Few steps from moderate noise, alpha below
# alpha_max everywhere, and the lookahead kept off t = 0, where a velocity has no signal.
TEXT_DEFAULTS = DTG(
    t_start=0.4, steps=10, delta0=0.15, alpha0=1.8, kappa=4.0, space="velocity", tau_floor=0.25
)
