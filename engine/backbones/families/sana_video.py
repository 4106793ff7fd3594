"""Sana-Video, with linear attention."""

from __future__ import annotations

from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding


class SanaVideoBackbone(DiffusersBackbone):
    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Without the variance that some weights predict beside it."""
        return output[:, : x.shape[1]]


FAMILY = DiffusersFamily(
    Adapter(
        name="sana-video",
        transformer="SanaVideoTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "caption_channels"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "prompt_attention_mask"), POSITIVE),
        context_tokens=300,
        live_channels=14.1,
        chunk=81,
        tile=(832, 480),
    ),
    SanaVideoBackbone,
)
