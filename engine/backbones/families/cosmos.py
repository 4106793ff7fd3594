"""Cosmos-Predict2 and 2.5 (video and image to world), without conditioning frames.

Predict2's pipeline keeps y = x_0 + sigma eps and feeds it times c_in = 1 - t, with t = sigma / (1 +
sigma): that is the flow's x, and x_0 = c_in y - t F = x - t F, so that its output F is v.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding

FRAMES_PER_SECOND = 16  # that Predict2 is told; 2.5 is told none


class CosmosBackbone(DiffusersBackbone):
    def load(self, root: Path) -> None:
        self._planes = self.transformer.config.in_channels - self.facts.codec.channels
        if self.transformer.config.concat_padding_mask:
            # The module would resize the mask through torchvision.  It is zero everywhere: its
            # plane is joined here.
            self._planes += 1
            self.transformer.register_to_config(concat_padding_mask=False)

    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """With the mask of conditioning frames and that of padding, both zero."""
        batch, _, *grid = x.shape
        inputs = super().inputs(
            torch.cat([x, x.new_zeros(batch, self._planes, *grid)], 1), t, texts
        )
        if not self.transformer.config.use_crossattn_projection:  # which 2.5 alone has
            inputs["fps"] = FRAMES_PER_SECOND
        return inputs


FAMILY = DiffusersFamily(
    Adapter(
        name="cosmos",
        transformer="CosmosTransformer3DModel",
        texts={"prompt_embeds": Text("encoder_hidden_states")},
        encoding=Encoding(("prompt_embeds",), POSITIVE, with_vae=True),
        context_tokens=512,
        live_channels=14.1,
        time=(1.0, 0.0),
        chunk=93,
        tile=(1280, 704),
    ),
    CosmosBackbone,
)
