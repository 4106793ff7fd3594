"""Mochi 1, whose time runs from noise at 0 to data at 1000 and whose output is x_0 - eps."""

from __future__ import annotations

from .base import Adapter, DiffusersFamily, Text
from .text import POSITIVE, Encoding

FAMILY = DiffusersFamily(
    Adapter(
        name="mochi",
        transformer="MochiTransformer3DModel",
        texts={
            "prompt_embeds": Text("encoder_hidden_states", "text_embed_dim"),
            "prompt_attention_mask": Text("encoder_attention_mask"),
        },
        encoding=Encoding(("prompt_embeds", "prompt_attention_mask"), POSITIVE),
        context_tokens=256,
        time=(-1000.0, 1000.0),
        sign=-1.0,
        chunk=85,
        overlap=13,
        tile=(848, 480),
    )
)
