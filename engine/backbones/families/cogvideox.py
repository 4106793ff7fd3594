"""CogVideoX: a v-prediction on an alpha-bar schedule, converted to rectified flow.

Its state at step k is y = a x_0 + s eps with a = sqrt(abar_k), s = sqrt(1 - abar_k), its output
u = a eps - s x_0.  Flow time t has the same ratio of signal to noise where a / s = (1 - t) / t, so
with n = sqrt((1 - t)^2 + t^2)

    a = (1 - t) / n      s = t / n      y = x / n
    x_0 = a y - s u      eps = s y + a u      v = eps - x_0 = ((2 t - 1) y + u) / n

The step of t is found on the curve of the angles atan2(s, a), which is finite at zero signal, and
is not rounded: the model embeds it through sines, so that it may lie between two integers.  Times
whose ratio lies outside the schedule take its first or last step.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...diffusers_folder import as_engine_error, diffusers_class
from ...errors import EngineError
from .base import Adapter, DiffusersBackbone, DiffusersFamily, Text
from .text import POSITIVE, Encoding


class CogVideoXBackbone(DiffusersBackbone):
    def load(self, root: Path) -> None:
        folder = root / "scheduler"
        with as_engine_error(folder):
            schedule = diffusers_class("CogVideoXDDIMScheduler").from_pretrained(
                str(folder), local_files_only=True
            )
        if schedule.config.prediction_type != "v_prediction":
            raise EngineError(f"{folder} predicts {schedule.config.prediction_type!r}, not v")
        abar = schedule.alphas_cumprod.double()
        self._angles = torch.atan2((1 - abar).sqrt(), abar.sqrt()).to(self.device)  # rising

    def step_of(self, t: Tensor) -> Tensor:
        """The step, between integers, with the signal-to-noise ratio of flow time t."""
        angle = torch.atan2(t, 1 - t).double()
        right = torch.searchsorted(self._angles, angle).clamp(1, len(self._angles) - 1)
        low, high = self._angles[right - 1], self._angles[right]
        return (right - 1 + ((angle - low) / (high - low)).clamp(0, 1)).float()

    def inputs(self, x: Tensor, t: Tensor, texts: dict[str, Tensor]) -> dict[str, Any]:
        """Frames come before channels, and CogVideoX 1.5 takes an even number of them."""
        y = x / _norm(t)
        missing = -x.shape[2] % self.facts.patch[0]
        y = torch.cat([y[:, :, :1].expand(-1, -1, missing, -1, -1), y], 2)
        return super().inputs(y.transpose(1, 2), t, texts) | {
            "timestep": self.step_of(t),
            "image_rotary_emb": self._rotary(*y.shape[2:]),
        }

    def flow(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        n, u = _norm(t), output.transpose(1, 2)[:, :, -x.shape[2] :]
        return ((2 * t[:, None, None, None, None] - 1) * x / n + u) / n

    def _rotary(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """As the pipeline makes it; its sizes are in latent cells where the VAE's factor is 1."""
        if not self.transformer.config.use_rotary_positional_embeddings:
            return None
        pipeline = SimpleNamespace(transformer=self.transformer, vae_scale_factor_spatial=1)
        rotary = diffusers_class("CogVideoXPipeline")._prepare_rotary_positional_embeddings
        return rotary(pipeline, height, width, frames, self.device)


def _norm(t: Tensor) -> Tensor:
    return torch.hypot(1 - t, t)[:, None, None, None, None]


FAMILY = DiffusersFamily(
    Adapter(
        name="cogvideox",
        transformer="CogVideoXTransformer3DModel",
        texts={"prompt_embeds": Text("encoder_hidden_states", "text_embed_dim")},
        encoding=Encoding(("prompt_embeds",), POSITIVE),
        context_tokens=226,
        chunk=49,
        tile=(720, 480),
    ),
    CogVideoXBackbone,
)
