"""Which implementation of attention a backbone runs on: asked for, checked, and reported.

Own networks are steered; a module of diffusers decides for itself.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import KernelChoiceError, attention
from ...kernels.attention import OP
from ..errors import EngineError
from .blocks import Attention

logger = logging.getLogger("dtg_restore")

SAGE = "sage"  # the one that is not exact
# Of a layer's result, as a share of its norm.  What is published of 8-bit attention on video models
# is one to four hundredths.
LARGE_ERROR = 0.05
TYPICAL_TOKENS = 128


def attention_for(
    asked: str, head_dim: int | None, device: torch.device, dtype: torch.dtype
) -> str | None:
    """The implementation that self-attention of many tokens has with the setting `asked`; None,
    as `head_dim` is, where a module of diffusers decides.

    EngineError, with all the reasons, where it is asked for by name and cannot run.
    """
    if head_dim is None:
        return None
    x = torch.zeros(1, 1, TYPICAL_TOKENS, head_dim, device=device, dtype=dtype)
    try:
        return OP.choose(x, x, x, name=_name(asked)).name
    except KernelChoiceError as error:
        raise EngineError(str(error)) from error


class Attend:
    """Attention by the setting `asked`, for all layers of one backbone's networks.

    EngineError where it cannot run.  Each layer's first result in 8 bits is compared with the exact
    one: that costs one exact evaluation a run.
    """

    def __init__(self, asked: str, head_dim: int, device: torch.device, dtype: torch.dtype):
        attention_for(asked, head_dim, device, dtype)
        self._asked, self._layers = asked, 0
        self.begin()

    def begin(self) -> None:
        """A new run, in which nothing has been used or measured."""
        self._used: set[str] = set()
        self._errors: dict[int, Tensor] = {}
        self._has_warned = False

    def steer(self, network: nn.Module) -> None:
        """Make every attention of `network` this one."""
        for module in network.modules():
            if isinstance(module, Attention):
                module.attend = partial(self._attend, self._layers)
                self._layers += 1

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return attention(q, k, v)
        name = OP.choose(q, k, v, name=_name(self._asked)).name
        self._used.add(name)
        out = attention(q, k, v, implementation=name)
        if name == SAGE and layer not in self._errors:
            self._measure(layer, out, attention(q, k, v, implementation="sdpa"))
        return out

    def _measure(self, layer: int, out: Tensor, exact: Tensor) -> None:
        exact = exact.float()
        error = self._errors[layer] = (out.float() - exact).norm() / exact.norm()
        if not (self._has_warned or error <= LARGE_ERROR):
            self._has_warned = True
            logger.warning(
                "attention in 8 bits is off by %.1f %% in a layer: another one is safer",
                100 * error,
            )

    def describe(self) -> dict[str, Any]:
        """Plain data for the report; `error` is the largest of a layer, None where all is exact."""
        error = torch.stack(list(self._errors.values())).max().item() if self._errors else None
        return {"asked": self._asked, "used": sorted(self._used), "error": error}


def _name(asked: str) -> str | None:
    return None if asked == "auto" else asked
