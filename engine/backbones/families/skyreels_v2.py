"""SkyReels-V2: text to video, and diffusion forcing with one time for all frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding

RATE = 1  # the index of 24 frames per second, that of 16 is 0


class SkyReelsV2Backbone(DiffusersBackbone):
    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        inputs = super().inputs(x, t, texts)
        if self.transformer.config.inject_sample_info:
            inputs["fps"] = [RATE] * len(x)
        return inputs


FAMILY = DiffusersFamily(
    Adapter(
        name="skyreels-v2",
        transformer="SkyReelsV2Transformer3DModel",
        texts={"prompt_embeds": Text("encoder_hidden_states", "text_dim")},
        encoding=Encoding(("prompt_embeds",), POSITIVE),
        ffn="ffn_dim",
        context_tokens=512,
        live_channels=12.1,
        chunk=97,
        tile=(960, 544),
    ),
    SkyReelsV2Backbone,
)
