"""LTX-2, the picture alone: the sound's stream is cut off, and its one token is silent.

The texts of this family are what the pipeline's connectors make of the encoder's layers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Adapter, DiffusersFamily, Text
from .ltx import LTXBackbone
from .text import POSITIVE, Encoding

FRAMES_PER_SECOND = 24.0


class LTX2Backbone(LTXBackbone):
    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        config = self.transformer.config
        key = "caption_channels" if config.use_prompt_embeddings else "audio_cross_attention_dim"
        sizes = {"audio_hidden_states": config.audio_in_channels}
        sizes["audio_encoder_hidden_states"] = config[key]
        silence = {
            name: x.new_zeros(len(x), 1, size, dtype=self._dtype) for name, size in sizes.items()
        }
        inputs = super().inputs(x, t, texts) | silence
        del inputs["rope_interpolation_scale"]
        return inputs | {
            "sigma": inputs["timestep"],
            "fps": FRAMES_PER_SECOND,
            "audio_num_frames": 1,
            "isolate_modalities": True,
        }


def _connected(pipeline: Any, embeds: Tensor, mask: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    side = pipeline.tokenizer.padding_side
    video, _, mask = pipeline.connectors(embeds, mask, padding_side=side)
    return video, mask


FAMILY = DiffusersFamily(
    Adapter(
        name="ltx2",
        transformer="LTX2VideoTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "prompt_attention_mask"), POSITIVE, _connected),
        context_tokens=1024,
        live_channels=19.1,
        chunk=97,
        tile=(768, 512),
    ),
    LTX2Backbone,
)
