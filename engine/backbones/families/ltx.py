"""LTX-Video: tokens instead of a grid, one latent cell each."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding

FRAMES_PER_SECOND = 25  # of the clip; the positions in time are in seconds


class LTXBackbone(DiffusersBackbone):
    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """Tokens (B, N, C p_t p p), the channels of one token in the order C, p_t, p, p."""
        (p_t, p, _), codec = self.facts.patch, self.facts.codec
        cells = x.unflatten(4, (-1, p)).unflatten(3, (-1, p)).unflatten(2, (-1, p_t))
        tokens = cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        frames, height, width = x.shape[2:]
        return super().inputs(tokens, t, texts) | {
            "num_frames": frames // p_t,
            "height": height // p,
            "width": width // p,
            "rope_interpolation_scale": (
                codec.frames / FRAMES_PER_SECOND,
                codec.pixels,
                codec.pixels,
            ),
        }

    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        p_t, p, _ = self.facts.patch
        frames, height, width = x.shape[2:]
        grid = output.unflatten(2, (-1, p_t, p, p)).unflatten(
            1, (frames // p_t, height // p, width // p)
        )
        return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(x.shape)


FAMILY = DiffusersFamily(
    Adapter(
        name="ltx",
        transformer="LTXVideoTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "caption_channels"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "prompt_attention_mask"), POSITIVE),
        context_tokens=128,
        live_channels=16.1,
        chunk=97,
        tile=(768, 512),
    ),
    LTXBackbone,
)
