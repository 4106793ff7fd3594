"""HunyuanVideo 1.5, as text to video: no image, and no latents of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import Encoding

IMAGE_TOKENS = 729  # of the absent image; masked out


class HunyuanVideo15Backbone(DiffusersBackbone):
    def load(self, root: Path) -> None:
        """The module casts its sines to the dtype of the time: the time itself is to stay fp32."""
        self.transformer.time_embed.timestep_embedder.register_forward_pre_hook(
            lambda _, sines: (sines[0].to(self._dtype),)
        )

    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """Latents, those of the image and the mask of the frames it covers: 2 C + 1 channels."""
        batch, channels, *grid = x.shape
        zeros = x.new_zeros(batch, channels + 1, *grid)
        width = self.transformer.config.image_embed_dim
        inputs = super().inputs(torch.cat([x, zeros], 1), t, texts)
        inputs["image_embeds"] = x.new_zeros(batch, IMAGE_TOKENS, width, dtype=self._dtype)
        return inputs


FAMILY = DiffusersFamily(
    Adapter(
        name="hunyuan-video-1.5",
        transformer="HunyuanVideo15Transformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "text_embed_dim"),
            "prompt_embeds_mask": Text("encoder_attention_mask"),
            "prompt_embeds_2": Text("encoder_hidden_states_2", "text_embed_2_dim"),
            "prompt_embeds_mask_2": Text("encoder_attention_mask_2"),
        },
        encoding=Encoding(
            ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2"),
            with_vae=True,
        ),
        context_tokens=1000 + 256 + IMAGE_TOKENS,
        chunk=61,
        tile=(832, 480),
    ),
    HunyuanVideo15Backbone,
)
