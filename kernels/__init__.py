"""The ops of the engine: each one a reference in pure torch and the faster versions beside it."""

from __future__ import annotations

import os
from typing import Any

from . import native
from .causal_conv3d import OP as _causal_conv3d
from .causal_conv3d import causal_conv3d
from .dispatch import ENV, KernelChoiceError, Op, parse_environment
from .dtg_step import OP as _dtg_step
from .dtg_step import dtg_step
from .gate_residual_norm import OP as _gate_residual_norm
from .gate_residual_norm import gate_residual_norm
from .gaussian_noise import OP as _gaussian_noise
from .gaussian_noise import gaussian_noise
from .gelu_bias import OP as _gelu_bias
from .gelu_bias import gelu_bias
from .layernorm_modulate import OP as _layernorm_modulate
from .layernorm_modulate import layernorm_modulate
from .rmsnorm_rope import OP as _rmsnorm_rope
from .rmsnorm_rope import rmsnorm_rope
from .rmsnorm_silu import OP as _rmsnorm_silu
from .rmsnorm_silu import rmsnorm_silu
from .winograd_conv3d import OP as _winograd_conv3d
from .winograd_conv3d import winograd_conv3d

__all__ = [
    "OPS",
    "KernelChoiceError",
    "causal_conv3d",
    "check_environment",
    "describe",
    "dtg_step",
    "gate_residual_norm",
    "gaussian_noise",
    "gelu_bias",
    "layernorm_modulate",
    "rmsnorm_rope",
    "rmsnorm_silu",
    "winograd_conv3d",
]

OPS: tuple[Op, ...] = (
    _dtg_step,
    _gaussian_noise,
    _layernorm_modulate,
    _gate_residual_norm,
    _rmsnorm_rope,
    _rmsnorm_silu,
    _causal_conv3d,
    _winograd_conv3d,
    _gelu_bias,
)


def describe() -> dict[str, Any]:
    """Plain data for `dtg-restore info`: the native library, and each op's implementations."""
    return {"native": native.describe(), "ops": [op.describe() for op in OPS]}


def check_environment() -> None:
    """KernelChoiceError where DTG_KERNELS names what is unknown or missing on this machine."""
    by_name = {op.name: op for op in OPS}
    for name, implementation in parse_environment(os.environ.get(ENV, "")).items():
        if name != "*" and name not in by_name:
            raise KernelChoiceError(f"{ENV}: unknown op {name!r}: known are {', '.join(by_name)}")
        for op in OPS if name == "*" else [by_name[name]]:
            if reasons := op.get(implementation).missing():
                raise KernelChoiceError(f"{op.name}: {implementation}: {'; '.join(reasons)}")
