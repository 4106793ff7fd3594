"""Which tiles a backbone can be exported for."""

from __future__ import annotations

from ..engine.backbones.base import BackboneFacts, Bucket
from ..engine.errors import ConfigError


def check_bucket(bucket: Bucket, facts: BackboneFacts) -> None:
    """ConfigError unless it obeys the backbone's `multiple_of`, with at least one sample."""
    m, n = facts.multiple_of
    frames, height, width, batches = bucket
    fits = frames > 0 and frames % m == facts.frame_offset % m and not (height % n or width % n)
    if not fits or min(height, width, *batches) < 1:
        raise ConfigError(
            f"{frames} frames of {width}x{height} pixels in batches of {batches}: {facts.name} "
            f"takes {m} k + {facts.frame_offset} frames with sides that are multiples of {n}"
        )
