"""EasyAnimate 5.1, as text to video."""

from __future__ import annotations

from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding


class EasyAnimateBackbone(DiffusersBackbone):
    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Without the variance that some weights predict beside it."""
        return output[:, : x.shape[1]]


FAMILY = DiffusersFamily(
    Adapter(
        name="easyanimate",
        transformer="EasyAnimateTransformer3DModel",
        texts={"prompt_embeds": Text("encoder_hidden_states", "text_embed_dim")},
        encoding=Encoding(("prompt_embeds",), POSITIVE),
        context_tokens=256,
        chunk=49,
        tile=(768, 512),
    ),
    EasyAnimateBackbone,
)
