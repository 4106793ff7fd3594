"""The ops of the engine: each one a reference in pure torch and the faster versions beside it."""

from __future__ import annotations

import os
from typing import Any

from . import native
from .anneal import OP as _anneal
from .anneal import anneal
from .attention import OP as _attention
from .attention import attention
from .causal_conv3d import OP as _causal_conv3d
from .causal_conv3d import causal_conv3d
from .color_match import OP as _color_match
from .color_match import color_match
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
from .linear import OP as _linear
from .linear import linear
from .linear_int8 import OP as _linear_int8
from .linear_int8 import linear_int8
from .patch_decode import OP as _patch_decode
from .patch_decode import patch_decode
from .patch_encode import OP as _patch_encode
from .patch_encode import patch_encode
from .rgb_to_yuv import OP as _rgb_to_yuv
from .rgb_to_yuv import rgb_to_yuv
from .rmsnorm_rope import OP as _rmsnorm_rope
from .rmsnorm_rope import rmsnorm_rope
from .rmsnorm_silu import OP as _rmsnorm_silu
from .rmsnorm_silu import rmsnorm_silu
from .tile_blend import OP as _tile_blend
from .tile_blend import tile_blend
from .tile_gather import OP as _tile_gather
from .tile_gather import tile_gather
from .winograd_conv3d import OP as _winograd_conv3d
from .winograd_conv3d import winograd_conv3d
from .yuv_to_rgb import OP as _yuv_to_rgb
from .yuv_to_rgb import yuv_to_rgb

__all__ = [
    "OPS",
    "KernelChoiceError",
    "attention",
    "anneal",
    "causal_conv3d",
    "check_environment",
    "color_match",
    "describe",
    "dtg_step",
    "gate_residual_norm",
    "gaussian_noise",
    "gelu_bias",
    "layernorm_modulate",
    "linear",
    "linear_int8",
    "rgb_to_yuv",
    "rmsnorm_rope",
    "yuv_to_rgb",
    "patch_decode",
    "patch_encode",
    "rmsnorm_rope",
    "tile_blend",
    "tile_gather",
    "rmsnorm_silu",
    "winograd_conv3d",
]

OPS: tuple[Op, ...] = (
    _dtg_step,
    _anneal,
    _gaussian_noise,
    _layernorm_modulate,
    _gate_residual_norm,
    _linear,
    _linear_int8,
    _rmsnorm_rope,
    _attention,
    _yuv_to_rgb,
    _rgb_to_yuv,
    _color_match,
    _patch_encode,
    _patch_decode,
    _tile_gather,
    _tile_blend,
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
        having = [op for op in OPS if any(i.name == implementation for i in op.implementations)]
        for op in (having or OPS) if name == "*" else [by_name[name]]:
            if reasons := op.get(implementation).missing():
                raise KernelChoiceError(f"{op.name}: {implementation}: {'; '.join(reasons)}")
