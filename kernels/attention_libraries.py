"""Attention by optional libraries, all of them for CUDA devices and 16-bit floats.

A package may import and still hold no code for the GPU at hand, so before a library is first used
on a device, it has to compute a few tokens there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .dispatch import Implementation

log = logging.getLogger("dtg_restore")

Capability = tuple[int, int]  # of a CUDA device: (9, 0) is sm_90
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
TRIAL_TOKENS = 128


def _nothing(*_: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class Library:
    """Where a library runs, and what it takes.

    `load` imports it and returns the function; `suits` says whether a device's capability is among
    those that `needs` names; `refuses` gives further reasons against q, k and v.
    """

    module: str
    load: Callable[[], Attention]
    suits: Callable[[Capability], bool]
    needs: str
    max_head_dim: int = 256
    has_gradient: bool = True
    refuses: Callable[[Tensor, Tensor, Tensor], Sequence[str]] = _nothing

    def missing(self) -> list[str]:
        """Why this machine lacks it; it is imported only where there is a GPU for it."""
        reasons = []
        if not any(map(self.suits, _capabilities())):
            reasons.append(f"it needs {self.needs}, and there is none")
        if error := _absence(self.module) or ("" if reasons else _import_error(self.module)):
            reasons.append(error)
        return reasons

    def unsupported(self, q: Tensor, k: Tensor, v: Tensor) -> list[str]:
        """Why it cannot take these tensors."""
        capability = _capability(q.device)
        if capability is None:
            return [f"q is on {q.device}, not on a CUDA device"]
        reasons = _form_reasons(q=q, k=k, v=v)
        head_dim = q.shape[-1]
        if not self.suits(capability):
            reasons.append("it needs {}, not sm_{}{}".format(self.needs, *capability))
        if head_dim % 8 or head_dim > self.max_head_dim:
            reasons.append(f"head_dim is {head_dim}, no multiple of 8 up to {self.max_head_dim}")
        if not self.has_gradient and _wants_gradient(q, k, v):
            reasons.append("a gradient is needed")
        reasons += [] if reasons else self.refuses(q, k, v)
        if not reasons and (failure := _failure(self.load, q.device, q.dtype, head_dim)):
            reasons.append(failure)
        return reasons

    def named(self, name: str, only_by_name: Callable[..., Sequence[str]]) -> Implementation:
        return Implementation(name, self.load, self.missing, self.unsupported, only_by_name)


def _form_reasons(**qkv: Tensor) -> list[str]:
    """What all the libraries want of tensors."""
    reasons = []
    if qkv["q"].dtype not in (torch.bfloat16, torch.float16):
        reasons.append(f"q is {qkv['q'].dtype}, not bfloat16 or float16")
    if qkv["q"].numel() == 0:
        reasons.append("there are no queries")
    for name, tensor in qkv.items():
        if tensor.stride(-1) != 1:
            reasons.append(f"{name} is not contiguous in the last dimension")
    return reasons


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@cache
def _capabilities() -> tuple[Capability, ...]:
    """Of the CUDA devices; ROCm's numbers mean something else."""
    if torch.version.cuda is None:
        return ()
    return tuple(map(torch.cuda.get_device_capability, range(torch.cuda.device_count())))


def _capability(device: torch.device) -> Capability | None:
    """None where it is no CUDA device."""
    if device.type != "cuda" or not _capabilities():
        return None
    return torch.cuda.get_device_capability(device)


@cache
def _absence(module: str) -> str:
    package = module.partition(".")[0]
    is_there = sys.modules.get(package) is not None or find_spec(package) is not None
    return "" if is_there else f"{package} is not installed"


@cache
def _import_error(module: str) -> str:
    try:
        import_module(module)
    except Exception as error:  # whatever a foreign package does at import
        return f"{module} does not import: {type(error).__name__}: {error}"
    return ""


@cache
def _failure(
    load: Callable[[], Attention], device: torch.device, dtype: torch.dtype, head_dim: int
) -> str:
    """What goes wrong with a few tokens; empty where nothing does."""
    x = torch.zeros(1, 1, TRIAL_TOKENS, head_dim, device=device, dtype=dtype)
    try:
        with torch.no_grad():
            load()(x, x, x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign package raises
        failure = f"it fails on {device}: {type(error).__name__}: {error}"
        log.warning("attention by %s is not available: %s", load.__name__, failure)
        return failure
    return ""


def flash3() -> Attention:
    function = import_module("flash_attn_interface").flash_attn_func

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(*_heads_inside(q, k, v), softmax_scale=_scale(q), causal=False)
        out = out[0] if isinstance(out, tuple) else out  # early versions add the logsumexp
        return out.transpose(1, 2)

    return attend


def flash2() -> Attention:
    function = import_module("flash_attn").flash_attn_func

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(*_heads_inside(q, k, v), softmax_scale=_scale(q), causal=False)
        return out.transpose(1, 2)

    return attend


def xformers() -> Attention:
    function = import_module("xformers.ops").memory_efficient_attention

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return function(*_heads_inside(q, k, v), scale=_scale(q)).transpose(1, 2)

    return attend


def sage() -> Attention:
    function = import_module("sageattention").sageattn

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return function(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=_scale(q))

    return attend


def cudnn() -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, scale=_scale(q))

    return attend


def _cudnn_refuses(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    backend = torch.backends.cuda
    given = backend.SDPAParams(q, k, v, None, 0.0, False, False)
    if backend.can_use_cudnn_attention(given):
        return []
    return [f"torch says that cuDNN {torch.backends.cudnn.version()} does not take these tensors"]


def _cudnn_is_slower(q: Tensor, *_: Tensor) -> list[str]:
    capability = _capability(q.device)
    is_fast = capability is not None and capability[0] in (9, 10)
    return [] if is_fast else ["cuDNN leads on sm_90 and sm_100 alone"]


def _changes_the_result(*_: Tensor) -> list[str]:
    return ["its products are in 8 bits"]


def _heads_inside(*heads_outside: Tensor) -> list[Tensor]:
    """(B, heads, N, head_dim) as (B, N, heads, head_dim): views."""
    return [x.transpose(1, 2) for x in heads_outside]


def _scale(q: Tensor) -> float:
    return float(q.shape[-1]) ** -0.5


def _is_hopper(capability: Capability) -> bool:
    return capability == (9, 0)


def _is_ampere(capability: Capability) -> bool:
    return capability >= (8, 0)


HOPPER, AMPERE = "a GPU of sm_90 (Hopper)", "a GPU of sm_80 or newer"

FLASH3 = Library("flash_attn_interface", flash3, _is_hopper, HOPPER).named("flash3", _nothing)
CUDNN = Library("torch", cudnn, _is_ampere, AMPERE, refuses=_cudnn_refuses).named(
    "cudnn", _cudnn_is_slower
)
FLASH2 = Library("flash_attn", flash2, _is_ampere, AMPERE).named("flash2", _nothing)
XFORMERS = Library("xformers.ops", xformers, _is_ampere, AMPERE).named("xformers", _nothing)
SAGE = Library(
    "sageattention", sage, _is_ampere, AMPERE, max_head_dim=128, has_gradient=False
).named("sage", _changes_the_result)
