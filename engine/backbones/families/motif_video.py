"""Motif-Video, as text to video: no frame is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import Encoding


class MotifVideoBackbone(DiffusersBackbone):
    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """Latents, those of the given frames and their mask: 2 C + 1 channels."""
        batch, channels, *grid = x.shape
        zeros = x.new_zeros(batch, channels + 1, *grid)
        return super().inputs(torch.cat([x, zeros], 1), t, texts)


FAMILY = DiffusersFamily(
    Adapter(
        name="motif-video",
        transformer="MotifVideoTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "text_embed_dim"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "negative_prompt_embeds", "prompt_attention_mask")),
        layers=("num_layers", "num_single_layers"),
        context_tokens=512,
        live_channels=18.2,
        chunk=81,
        tile=(832, 480),
    ),
    MotifVideoBackbone,
)
