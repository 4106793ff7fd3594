"""Kandinsky 5: channels last, positions given by the caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import Encoding

# How the positions are scaled: sides of about 480 pixels, and all others.
SMALL, LARGE, SMALL_SIDES = (1, 2, 2), (1, 3.16, 3.16), range(480, 855)


class Kandinsky5Backbone(DiffusersBackbone):
    def load(self, root: Path) -> None:
        if self.transformer.config.attention_type != "regular":
            raise EngineError(
                f"{root} has attention of type {self.transformer.config.attention_type!r}: only "
                "'regular' is supported"
            )

    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """Where the model can be given frames, it is given none: zero latents, zero mask."""
        channels, *grid = x.shape[1:]
        length = texts["encoder_hidden_states"].shape[1]
        if self.transformer.visual_cond:
            x = torch.cat([x, x.new_zeros(len(x), channels + 1, *grid)], 1)
        sides = [cells * self.facts.codec.pixels for cells in grid[1:]]
        axes = zip(grid, self.facts.patch, strict=True)
        return super().inputs(x.movedim(1, -1), t, texts) | {
            "text_rope_pos": torch.arange(length, device=self.device),
            "visual_rope_pos": [torch.arange(n // p, device=self.device) for n, p in axes],
            "scale_factor": SMALL if all(side in SMALL_SIDES for side in sides) else LARGE,
        }

    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return output.movedim(-1, 1)


FAMILY = DiffusersFamily(
    Adapter(
        name="kandinsky5",
        transformer="Kandinsky5Transformer3DModel",
        texts={
            "prompt_embeds_qwen": Text("encoder_hidden_states", "in_text_dim"),
            "prompt_embeds_clip": Text("pooled_projections", "in_text_dim2"),
        },
        encoding=Encoding(("prompt_embeds_qwen", "prompt_embeds_clip")),
        layers=("num_visual_blocks",),
        width="model_dim",
        ffn="ff_dim",
        context_tokens=512,
        chunk=121,
        tile=(768, 512),
    ),
    Kandinsky5Backbone,
)
