"""Colours of one clip carried over to another, frame by frame.

    wavelet    x + L (r - x)                            what of x is coarse becomes that of r
    adain      x + (gain - 1) (x - mean_x) + mean_r - mean_x,    gain = std_r / std_x

L is the low-pass of five levels of the a-trous wavelet pyramid: the taps (1, 2, 1) / 4, 1, 2, 4, 8
and 16 places apart, in both directions, edges repeated.  All levels together are a triangle of 63
taps.  L being linear, one pyramid puts the coarse part of r in the place of that of x.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import native
from . import triton as triton_kernels
from .coarse import LEAST_STD, RADII, statistics
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons

METHODS = ("wavelet", "adain")
DTYPES = (torch.float32, torch.bfloat16)


def color_match(
    frames: Tensor, reference: Tensor, method: str, *, implementation: str | None = None
) -> Tensor:
    """The frames with the coarse colours of `reference`.

    Parameters
    ----------
    frames, reference : (T, 3, H, W), float32 or bfloat16; gamma-encoded RGB
    method : "wavelet" (what is coarser than about 32 pixels is replaced) or "adain" (mean and
        standard deviation of each channel of each frame become those of the reference)
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (T, 3, H, W) float32, in new memory and not clamped; `frames` where both are the same.

    Raises
    ------
    ValueError : shapes, dtypes or devices do not fit, or the method is unknown
    KernelChoiceError : the implementation that was asked for cannot run

    Source: the a-trous algorithm (Holschneider et al. 1989); AdaIN, equation 8 (Huang and Belongie
    2017).
    """
    _check(frames, reference, method)
    return OP(frames, reference, method, name=implementation)


def reference(frames: Tensor, reference: Tensor, method: str) -> Tensor:
    x, r = frames.float(), reference.float()
    if method == "wavelet":
        return x + _low_pass(_low_pass(r - x, dim=3), dim=2)
    center, gain, shift = (c[..., None, None] for c in statistics(frames, reference))
    return x + ((x - center) * gain + shift)


def _low_pass(x: Tensor, dim: int) -> Tensor:
    index = torch.arange(x.shape[dim], device=x.device)
    for radius in RADII:
        before = x.index_select(dim, (index - radius).clamp_(min=0))
        following = x.index_select(dim, (index + radius).clamp_(max=len(index) - 1))
        x = 0.25 * (before + following) + 0.5 * x
    return x


def _check(frames: Tensor, reference: Tensor, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    for name, clip in (("frames", frames), ("reference", reference)):
        if clip.ndim != 4 or clip.shape[1] != 3:
            raise ValueError(f"{name} must be (T, 3, H, W), got {tuple(clip.shape)}")
        if clip.dtype not in DTYPES:
            raise ValueError(f"{name} must be float32 or bfloat16, got {clip.dtype}")
    if frames.shape != reference.shape or frames.device != reference.device:
        raise ValueError(
            f"reference is {tuple(reference.shape)} on {reference.device}, "
            f"but frames is {tuple(frames.shape)} on {frames.device}"
        )


def _native(frames: Tensor, reference: Tensor, method: str) -> Tensor:
    out = torch.empty(frames.shape)
    native.library().color_match(
        frames=(frames.data_ptr(), *frames.stride()[:3]),
        reference=(reference.data_ptr(), *reference.stride()[:3]),
        num_frames=len(frames),
        size=tuple(frames.shape[2:]),
        wavelet=method == "wavelet",
        least_std=LEAST_STD,
        out=out.data_ptr(),
        num_threads=torch.get_num_threads(),
    )
    return out


def _native_unsupported(frames: Tensor, reference: Tensor, _: str) -> list[str]:
    rows: dict[str, Tensor | None] = {"frames": frames, "reference": reference}
    return address_reasons("cpu", rows, dtypes=(torch.float32,))


def _load_triton() -> Callable[..., Tensor]:
    from .triton.color_match import color_match as triton_match

    return triton_match


def _triton_unsupported(frames: Tensor, reference: Tensor, _: str) -> list[str]:
    rows: dict[str, Tensor | None] = {"frames": frames, "reference": reference}
    return address_reasons(triton_kernels.device_type(), rows, dtypes=DTYPES)


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    size: tuple[int, int, int] | None = None,
    method: str = "wavelet",
    padding: int = 0,
) -> tuple[Tensor, Tensor, str]:
    num_frames, height, width = size or ((16, 480, 832) if device.type == "cuda" else (1, 240, 416))
    shape = (2, num_frames, 3, height + padding, width + padding)
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    clips = clips[..., :height, :width]
    return clips[0].to(dtype), (0.7 * clips[1] + 0.2).to(dtype), method


# Computed in float32 from inputs that were rounded before: what differs is the order of sums.
_TOLERANCE = Tolerance(rtol=1.5e-6, atol=1.5e-6)

OP = Op(
    name="color_match",
    formula="x + L (r - x), or x + (std_r / std_x - 1) (x - mean_x) + mean_r - mean_x",
    reference=reference,
    faster=(
        Implementation("native", lambda: _native, native.missing, _native_unsupported),
        Implementation("triton", _load_triton, triton_kernels.missing, _triton_unsupported),
    ),
    tolerance=dict.fromkeys(DTYPES, _TOLERANCE),
    cases=(
        Case("odd sizes", partial(_inputs, size=(2, 37, 75))),
        Case("odd sizes, adain", partial(_inputs, size=(2, 37, 75), method="adain")),
        Case("one frame", partial(_inputs, size=(1, 5, 3))),
        Case("one frame, adain", partial(_inputs, size=(1, 5, 3), method="adain")),
        Case("one pixel", partial(_inputs, size=(2, 1, 1))),
        Case("one pixel, adain", partial(_inputs, size=(2, 1, 1), method="adain")),
        Case("empty", partial(_inputs, size=(0, 6, 8))),
        Case("empty, adain", partial(_inputs, size=(0, 6, 8), method="adain")),
        Case("non-contiguous", partial(_inputs, size=(2, 9, 33), padding=5)),
        Case("non-contiguous, adain", partial(_inputs, size=(2, 9, 33), padding=5, method="adain")),
        Case("production, adain", partial(_inputs, method="adain")),
        Case("production", _inputs),
    ),
)
