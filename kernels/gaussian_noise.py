"""Standard normal noise as a pure function of (seed, absolute frame, channel, y, x).

The Philox4x32-10 counter is (x // 4, y, channel, frame), its key is the seed; each of its four
words is a uniform u = (word + 1/2) / 2^32, and two of them make two normals (Box-Muller), the four
normals of a block being neighbours in x:

    r = sqrt(-2 log u_0),   n_0 = r cos(2 pi u_1),   n_1 = r sin(2 pi u_1)

in fp64, rounded once to fp32.  So a value does not depend on the window, the tile, the chunk or the
order in which it is asked for.  The native version gives the same bits on every processor; the
reference differs from it by at most one unit in the last place, where log or cos do.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from . import native
from .dispatch import Case, Implementation, Op, Tolerance

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def gaussian_noise(
    seed: int,
    start_frame: int,
    num_frames: int,
    channels: int,
    height: int,
    width: int,
    *,
    device: torch.device | str,
    y0: int = 0,
    x0: int = 0,
    implementation: str | None = None,
) -> Tensor:
    """The window of the noise field that starts at (`start_frame`, channel 0, `y0`, `x0`).

    Parameters
    ----------
    seed : taken modulo 2^64
    start_frame, y0, x0 : absolute position of the first value; may be negative, below 2^31
    num_frames, channels, height, width : size of the window
    implementation : its name, or None for the best one on `device`

    Returns
    -------
    Tensor (C, T, H, W) float32 on `device`.

    Raises
    ------
    ValueError : a negative size, or a position out of range
    KernelChoiceError : the implementation that was asked for cannot run
    """
    sizes = {"num_frames": num_frames, "channels": channels, "height": height, "width": width}
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} must not be negative, got {size}")
    for name, first, size in (
        ("start_frame", start_frame, num_frames),
        ("y0", y0, height),
        ("x0", x0, width),
    ):
        if not -(2**31) <= first <= first + size <= 2**31:
            raise ValueError(f"{name} must lie in -2^31 .. 2^31 - size, got {first}")
    window = (start_frame, num_frames, channels, height, width, y0, x0)
    return OP(seed, *window, torch.device(device), name=implementation)


def reference(
    seed: int,
    start_frame: int,
    num_frames: int,
    channels: int,
    height: int,
    width: int,
    y0: int,
    x0: int,
    device: torch.device,
) -> Tensor:
    out = torch.empty(channels, num_frames, height, width, device=device)
    first, last = x0 // 4, (x0 + width - 1) // 4
    c = torch.arange(channels, device=device).view(-1, 1, 1)
    y = torch.arange(y0, y0 + height, device=device).view(1, -1, 1)
    group = torch.arange(first, last + 1, device=device).view(1, 1, -1)
    for t in range(num_frames):  # frame by frame: the words are int64 and need eight times the room
        frame = torch.full((1, 1, 1), start_frame + t, device=device)
        words = philox((group, y, c, frame), seed)  # 4 x (C, H, groups)
        normals = torch.stack([*box_muller(*words[:2]), *box_muller(*words[2:])], dim=-1)
        rows = normals.flatten(-2)  # (C, H, 4 * groups)
        out[:, t] = rows[..., x0 - 4 * first :][..., :width]
    return out


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 of int64 tensors that broadcast; only the low 32 bits of each count.

    A product of two words overflows int64, but wraps, so that its 64 bits are right; the right
    shift copies the sign, hence the mask.
    """
    c0, c1, c2, c3 = (c & _WORD for c in torch.broadcast_tensors(*counter))
    k0, k1 = seed & _WORD, seed >> 32 & _WORD
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32 & _WORD) ^ c1 ^ k0
        c2 = (p0 >> 32 & _WORD) ^ c3 ^ k1
        c1, c3 = p1 & _WORD, p0 & _WORD
        k0, k1 = k0 + _KEY_STEPS[0] & _WORD, k1 + _KEY_STEPS[1] & _WORD
    return c0, c1, c2, c3


def box_muller(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    u0, u1 = ((word.double() + 0.5) / 2**32 for word in (word0, word1))
    r = torch.sqrt(-2 * torch.log(u0))
    return (r * torch.cos(2 * math.pi * u1)).float(), (r * torch.sin(2 * math.pi * u1)).float()


def _native(
    seed: int,
    start_frame: int,
    num_frames: int,
    channels: int,
    height: int,
    width: int,
    y0: int,
    x0: int,
    device: torch.device,
) -> Tensor:
    out = torch.empty(channels, num_frames, height, width)
    window = (start_frame, num_frames, channels, height, width, y0, x0)
    threads = torch.get_num_threads()
    native.library().gaussian_noise(seed % 2**64, *window, out.data_ptr(), threads)
    return out


def _native_unsupported(*arguments: int | torch.device) -> list[str]:
    device = arguments[-1]
    if torch.compiler.is_compiling():
        return ["the call is being traced"]
    return [] if device == torch.device("cpu") else [f"the device is {device}, not cpu"]


def _window(
    _dtype: torch.dtype,
    device: torch.device,
    size: tuple[int, int, int, int],
    start: tuple[int, int, int] = (0, 0, 0),
    seed: int = 7,
) -> tuple[int | torch.device, ...]:
    channels, num_frames, height, width = size
    start_frame, y0, x0 = start
    return seed, start_frame, num_frames, channels, height, width, y0, x0, device


OP = Op(
    name="gaussian_noise",
    formula="Box-Muller of Philox4x32-10, counter (x // 4, y, channel, frame), key = seed",
    reference=reference,
    faster=(Implementation("native", lambda: _native, native.missing, _native_unsupported),),
    tolerance={torch.float32: Tolerance(rtol=2**-23, atol=1e-12)},
    cases=(
        Case("odd sizes", partial(_window, size=(3, 5, 7, 13), start=(2, 5, 3))),
        Case("one frame", partial(_window, size=(4, 1, 9, 6), start=(10**6, 1, 1))),
        Case("one value", partial(_window, size=(1, 1, 1, 1), start=(0, 0, 2))),
        Case("empty", partial(_window, size=(3, 0, 4, 4))),
        Case("before the origin", partial(_window, size=(2, 2, 5, 9), start=(-1, -3, -7))),
        Case("large seed", partial(_window, size=(1, 2, 3, 4), seed=2**64 - 5)),
        Case("negative seed", partial(_window, size=(1, 2, 3, 4), seed=-5)),
        Case("production", partial(_window, size=(16, 21, 60, 104))),  # 81 frames of 832 x 480
    ),
)
