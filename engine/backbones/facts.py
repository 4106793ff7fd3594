"""The facts of the registered backbones, apart from their code so that reading them loads nothing.

The guidance defaults are measured, not the paper's: see bench/results/sweep_mini.json.
"""

from __future__ import annotations

from ..config import DTG
from .base import BackboneFacts

MINI = BackboneFacts(
    name="mini",
    patch=(2, 8, 8),
    multiple_of=(2, 8),
    parameters=4_002_624,
    width=192,
    depth=6,
    ffn_width=768,
    context_tokens=4,
    chunk=16,
    overlap=4,
    tile=(64, 64),
    tile_overlap=8,
    tile_batch=4,
    defaults=DTG(t_start=0.16, steps=2, delta0=0.15, alpha0=1.2, kappa=4.0, space="x0"),
    prompt="clean",
    negative_prompt="null",
)
