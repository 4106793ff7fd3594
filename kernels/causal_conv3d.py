"""The input of a causal convolution in time: frames before, new frames, and zeros around them.

Causal: a frame sees itself and the `taps - 1` before it, which are zero at the start of a clip.
The convolution of the result takes no padding of its own.  One read and one write of the values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, tokens
from . import triton as triton_kernels
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons


def causal_conv3d(
    x: Tensor, past: Tensor | None, taps: int = 3, *, implementation: str | None = None
) -> Tensor:
    """The frames that a causal convolution of `taps` x 3 x 3 sees.

    Parameters
    ----------
    x : (T, H, W, C), float32, bfloat16 or float16
    past : (taps - 1, H, W, C) of the same dtype, the frames before; None: they are zero
    taps : at least 1
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (T + taps - 1, H + 2, W + 2, C), in new memory: bit for bit the values given.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit
    KernelChoiceError : the implementation that was asked for cannot run
    """
    if x.ndim != 4 or x.dtype not in tokens.TOLERANCE:
        raise ValueError(
            f"x must be (T, H, W, C) float32, bfloat16 or float16, got {tuple(x.shape)} {x.dtype}"
        )
    if taps < 1:
        raise ValueError(f"taps must be at least 1, got {taps}")
    fits = past is None or (
        past.shape == (taps - 1, *x.shape[1:]) and (past.dtype, past.device) == (x.dtype, x.device)
    )
    if past is not None and not fits:
        raise ValueError(
            f"past must be {(taps - 1, *x.shape[1:])} {x.dtype} on {x.device}, "
            f"got {tuple(past.shape)} {past.dtype} on {past.device}"
        )
    return OP(x, past, taps, name=implementation)


def reference(x: Tensor, past: Tensor | None, taps: int) -> Tensor:
    around = (0, 0, 1, 1, 1, 1)
    if past is None:
        return F.pad(x, (*around, taps - 1, 0))
    return F.pad(torch.cat([past, x]), around)


def _cuda(x: Tensor, past: Tensor | None, taps: int) -> Tensor:
    frames, height, width, channels = x.shape
    out = x.new_empty(frames + taps - 1, height + 2, width + 2, channels)
    with native.cuda_stream(x.device) as stream:
        native.library().cuda.causal_conv3d(
            past=0 if past is None else past.data_ptr(),
            chunk=x.data_ptr(),
            out=out.data_ptr(),
            shape=(1, frames, height, width, channels),
            past_frames=0 if past is None else taps - 1,
            front=taps - 1,
            padding=(1, 1, 1, 1),
            dtype=native.DTYPE_CODES[x.dtype],
            stream=stream,
        )
    return out


def _cuda_unsupported(x: Tensor, past: Tensor | None, _: int) -> list[str]:
    return address_reasons("cuda", x=x, past=past) or native.cuda_device_reasons(x.device)


def _load_triton() -> Callable[..., Tensor]:
    from .triton.causal_conv3d import causal_conv3d as triton_assembly

    return triton_assembly


def _triton_unsupported(x: Tensor, past: Tensor | None, _: int) -> list[str]:
    return address_reasons(triton_kernels.device_type(), x=x, past=past)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] | None = None,
    past: bool = True,
    taps: int = 3,
    transposed: bool = False,
) -> tuple[Tensor, Tensor | None, int]:
    shape = shape or (4, 480, 832, 96) if device.type == "cuda" else shape or (4, 32, 48, 96)
    x = tokens.normal(*shape, seed=0, device=device)
    x = (x.transpose(1, 2).contiguous().transpose(1, 2) if transposed else x).to(dtype)
    before = tokens.normal(taps - 1, *shape[1:], seed=1, device=device).to(dtype)
    return x, before if past else None, taps


OP = Op(
    name="causal_conv3d",
    formula="zeros around [past or zeros, x]",
    reference=reference,
    faster=(
        Implementation("cuda", lambda: _cuda, native.cuda_missing, _cuda_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=dict.fromkeys(tokens.TOLERANCE, Tolerance(rtol=0.0, atol=0.0)),
    cases=(
        Case("odd sizes", partial(_inputs, shape=(3, 5, 7, 18))),
        Case("one frame", partial(_inputs, shape=(1, 4, 6, 32))),
        Case("no past", partial(_inputs, shape=(2, 4, 6, 16), past=False)),
        Case("one tap", partial(_inputs, shape=(2, 4, 6, 16), taps=1)),
        Case("empty", partial(_inputs, shape=(0, 4, 4, 16), past=False, taps=1)),
        Case("non-contiguous", partial(_inputs, shape=(2, 4, 6, 16), transposed=True)),
        Case("production", _inputs),  # the widest level of the published VAE
    ),
)
