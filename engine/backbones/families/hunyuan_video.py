"""HunyuanVideo, whose released weights are distilled for guidance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import Encoding

# The scale that a distilled model is told.  1 is no guidance: the only guidance is then ours.
EMBEDDED_GUIDANCE = 1.0


class HunyuanVideoBackbone(DiffusersBackbone):
    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        inputs = super().inputs(x, t, texts)
        if self.transformer.config.guidance_embeds:
            inputs["guidance"] = t.new_full(t.shape, 1000 * EMBEDDED_GUIDANCE)
        return inputs


FAMILY = DiffusersFamily(
    Adapter(
        name="hunyuan-video",
        transformer="HunyuanVideoTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "text_embed_dim"),
            "pooled_prompt_embeds": Text("pooled_projections", "pooled_projection_dim"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")),
        layers=("num_layers", "num_single_layers"),
        context_tokens=256,
        live_channels=18.2,
        chunk=61,
        tile=(832, 480),
    ),
    HunyuanVideoBackbone,
)
