"""The `patch` transform: a lossless, orthonormal block transform in the place of a learned codec.

    z = M6 . blocks(x) . D64^T

Blocks of 2 frames x 8 x 8 pixels go through an orthonormal DCT in time and space, see
`kernels.patch_encode`.  The transform is orthonormal, so white noise stays white and a velocity in
pixels is a velocity in latents: the sampler's state may live in either domain.

The grid of blocks can be shifted by a `phase`, cyclically, so that no shape changes.  A sampler
that shifts it from step to step leaves no block edges behind.
"""

from __future__ import annotations

from ...kernels import patch_decode as decode
from ...kernels import patch_encode as encode
from ...kernels.patch_blocks import BLOCK, CHANNELS, COLOURS, Phase

__all__ = ["BLOCK", "CHANNELS", "COLOURS", "Phase", "decode", "encode"]
