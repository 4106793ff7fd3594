"""Causal 3 x 3 x 3 convolution of frames in Winograd form, with what follows it, for CPUs in fp32.

The form F(4 x 4, 3 x 3) takes 36 products for 16 pixels instead of 144.  Input d, weight g and
output y of a tile relate as

    y = A^T [ sum over taps and channels of (G g G^T) * (B^T d B) ] A

(Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015).  Its rounding error is
several times that of the plain sum, 1e-5 of the output's scale; the transformed weights take more
than five times the memory.

The products are one grouped convolution in time: the 36 places of a tile are the groups, whose
channels lie side by side, and the taps are its kernel.  oneDNN runs it at the rate of a large
matrix product, down to 32 channels; batched products of the same size reached four fifths of that.
A run of tiles at a time stays in the cache; the ways in and out of the form read the frames and
write the result where they lie, with all that is done to a value in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .dispatch import Case, Implementation, Op, Tolerance, address_reasons
from .tokens import normal

TILE = 4  # rows and columns of the output that one tile makes
WINDOW = TILE + 2  # rows and columns that it sees
PLACES = WINDOW**2
BLOCK = 16  # channels are padded to a multiple of these, the width of a register
RUN_BYTES = 3 << 19  # of what lies between both ways, in or near the second cache
EPS = 1e-24  # of the norm, as the layer has it

B_T = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
G_24 = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24 G
A_T = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


@dataclass(frozen=True)
class Weights:
    """G g G^T of a weight (O, C, taps, 3, 3), made once by `prepare`.

    Each of `forms` is (36 * O, C, taps, 1, 1) with O and C padded: all taps, and the last one
    alone.  Where oneDNN serves they lie in its own layout.
    """

    inputs: int
    outputs: int
    taps: int
    forms: tuple[Tensor, ...]

    def seen(self, taps: int) -> Tensor:
        """The form for a convolution in which only the last `taps` see anything."""
        return self.forms[0 if taps == self.taps else 1]

    def products(self, taps: int) -> Tensor:
        """The last taps (taps, 36, C, O), unpadded, for plain products."""
        form = self.seen(taps)
        dense = form.to_dense() if form.is_mkldnn else form
        dense = dense.view(PLACES, -1, *dense.shape[1:3])[:, : self.outputs, : self.inputs]
        return dense.permute(3, 0, 2, 1).contiguous()


def prepare(weight: Tensor) -> Weights:
    """The form of `weight` (O, C, taps, 3, 3), fp32 on the CPU, taps being 3 or 1.

    ValueError where it is something else.
    """
    if weight.ndim != 5 or weight.shape[3:] != (3, 3) or weight.shape[2] not in (1, 3):
        raise ValueError(f"weight must be (O, C, 3 or 1, 3, 3), got {tuple(weight.shape)}")
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(f"weight must be float32 on cpu, got {weight.dtype} on {weight.device}")
    outputs, inputs, taps = weight.shape[:3]
    g = torch.tensor(G_24, dtype=torch.float64) / 24
    matrix = torch.kron(g, g).float() @ weight.permute(3, 4, 0, 1, 2).reshape(9, -1)
    places = matrix.view(PLACES, outputs, inputs, taps)
    places = F.pad(places, (0, 0, 0, padded(inputs) - inputs, 0, padded(outputs) - outputs))
    form = places.flatten(0, 1)[..., None, None]
    forms = (form,) if taps == 1 else (form, form[:, :, -1:])
    return Weights(inputs, outputs, taps, tuple(map(_packed, forms)))


def padded(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _packed(form: Tensor) -> Tensor:
    if _missing():
        return form.contiguous()
    size = [1, PLACES * form.shape[1], form.shape[2], 1, 64]  # of a run of tiles
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        form.contiguous(), [0, 0, 0], [1, 1, 1], [1, 1, 1], PLACES, size
    )
    return packed


def winograd_conv3d(
    x: Tensor,
    past: Tensor | None,
    weights: Weights,
    bias: Tensor,
    residual: Tensor | None = None,
    gamma: Tensor | None = None,
    scale: int = 1,
    *,
    implementation: str | None = None,
) -> Tensor:
    """The convolution of frames with zeros around them, and what follows it.

    Parameters
    ----------
    x : (T, H, W, C), float32 on the CPU
    past : (taps - 1, H, W, C), the frames before; None where only the last tap sees anything
    weights : of `prepare`
    bias : (O,)
    residual : (T, s H, s W, O), added to the result
    gamma : (O,): the result is `silu(rms_norm(.) * gamma)`, as of `rmsnorm_silu`
    scale : s, 1 or 2; 2 convolves the frames at twice their width and height, pixels repeated
    implementation : its name, or None for the best one that takes these tensors

    Returns
    -------
    Tensor (T, s H, s W, O), in new memory.

    Raises
    ------
    ValueError : shapes or dtypes do not fit, or both residual and gamma are given
    KernelChoiceError : the implementation that was asked for cannot run
    """
    _check(x, past, weights, bias, residual, gamma, scale)
    return OP(x, past, weights, bias, residual, gamma, scale, name=implementation)


def _check(
    x: Tensor,
    past: Tensor | None,
    weights: Weights,
    bias: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    scale: int,
) -> None:
    if x.ndim != 4 or x.shape[3] != weights.inputs or x.dtype != torch.float32:
        raise ValueError(
            f"x must be (T, H, W, {weights.inputs}) float32, got {tuple(x.shape)} {x.dtype}"
        )
    if scale not in (1, 2):
        raise ValueError(f"scale must be 1 or 2, got {scale}")
    frames, height, width, channels = x.shape
    expected = {
        "past": (past, (weights.taps - 1, height, width, channels)),
        "bias": (bias, (weights.outputs,)),
        "residual": (residual, (frames, scale * height, scale * width, weights.outputs)),
        "gamma": (gamma, (weights.outputs,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and (tensor.shape != shape or tensor.dtype != torch.float32):
            raise ValueError(
                f"{name} must be {shape} float32, got {tuple(tensor.shape)} {tensor.dtype}"
            )
    if residual is not None and gamma is not None:
        raise ValueError("residual and gamma exclude each other")


def reference(
    x: Tensor,
    past: Tensor | None,
    weights: Weights,
    bias: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    scale: int,
) -> Tensor:
    taps = 1 if past is None else weights.taps
    seen = x if past is None else torch.cat([past, x])
    seen = seen.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    frames, height, width = len(x), *seen.shape[1:3]
    down, across = -(-height // TILE), -(-width // TILE)
    volume = F.pad(seen, (0, 0, 1, 1 + across * TILE - width, 1, 1 + down * TILE - height))
    inwards, outwards = torch.tensor(B_T).float(), torch.tensor(A_T).float()
    products = weights.products(taps)
    y = x.new_empty(frames, down * TILE, across * TILE, weights.outputs)
    for row in range(0, down * TILE, TILE):
        windows = volume[:, row : row + WINDOW].unfold(2, WINDOW, TILE)  # (T, 6, across, C, 6)
        d = torch.einsum("ai,tixcj,bj->abtxc", inwards, windows, inwards).flatten(0, 1)
        seen_by = [d[:, tap : tap + frames] for tap in range(taps)]
        m = torch.einsum("kptxc,kpco->ptxo", torch.stack(seen_by), products)
        m = m.unflatten(0, (WINDOW, WINDOW))
        tiles = torch.einsum("ia,jb,abtxo->tixjo", outwards, outwards, m)
        y[:, row : row + TILE] = tiles.flatten(2, 3)
    y = y[:, :height, :width] + bias
    if residual is not None:
        y += residual
    return y if gamma is None else F.silu(F.rms_norm(y, (len(gamma),), gamma, eps=EPS))


def _native(
    x: Tensor,
    past: Tensor | None,
    weights: Weights,
    bias: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    scale: int,
) -> Tensor:
    frames, height, width, channels = x.shape
    y = native.empty(frames, scale * height, scale * width, weights.outputs)
    before = 0 if past is None else len(past)
    form = weights.seen(before + 1)
    wide = padded(channels)
    library, threads = native.library(), torch.get_num_threads()
    between = frames * padded(weights.outputs) + (before + frames) * wide
    runs = list(_runs(y, 4 * PLACES * between))
    space = x.new_empty(runs[0][1] if runs else 0, before + frames, PLACES * wide)
    for first, num in runs:
        d = space[:num].view(1, before + frames, 1, num, PLACES * wide)
        library.winograd_input(
            past=0 if past is None else past.data_ptr(),
            x=x.data_ptr(),
            past_frames=before,
            size=(frames, height, width),
            scale=scale,
            run=(first, num, channels, wide),
            out=d.data_ptr(),
            num_threads=threads,
        )
        m = _convolve(d.permute(0, 4, 1, 2, 3), form)
        library.winograd_output(
            m=m.data_ptr(),
            bias=bias.data_ptr(),
            residual=0 if residual is None else residual.data_ptr(),
            gamma=0 if gamma is None else gamma.data_ptr(),
            eps=EPS,
            size=tuple(y.shape[:3]),
            run=(first, num, weights.outputs, padded(weights.outputs)),
            out=y.data_ptr(),
            num_threads=threads,
        )
        del m  # so that the next one takes its place in the cache
    return y


def _runs(y: Tensor, tile_bytes: int) -> Iterator[tuple[int, int]]:
    """First tile and number of tiles of each run, as even as can be."""
    total = -(-y.shape[1] // TILE) * -(-y.shape[2] // TILE) if y.numel() else 0
    most = max(1, RUN_BYTES // max(tile_bytes, 1))
    size = -(-total // -(-total // most)) if total else 1
    for first in range(0, total, size):
        yield first, min(size, total - first)


def _convolve(d: Tensor, form: Tensor) -> Tensor:
    """d (1, 36 C, T + taps - 1, 1, tiles) to (1, 36 O, T, 1, tiles), both channels-last."""
    stride = [1, 1, 1]
    m: Tensor = torch.ops.mkldnn._convolution_pointwise(
        d, form, None, [0, 0, 0], stride, stride, PLACES, "none", [], ""
    )
    return m


def _missing() -> list[str]:
    reasons = native.missing()
    names = ("_reorder_convolution_weight", "_convolution_pointwise")
    if not torch.backends.mkldnn.is_available():
        return [*reasons, "torch has no oneDNN"]
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return [*reasons, "this torch has no oneDNN convolution on prepared weights"]
    return reasons


def _native_unsupported(
    x: Tensor,
    past: Tensor | None,
    weights: Weights,
    bias: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    scale: int,
) -> list[str]:
    reasons = address_reasons("cpu", x=x, past=past, bias=bias, residual=residual, gamma=gamma)
    if not weights.forms[0].is_mkldnn:
        reasons.append("the weights were prepared without oneDNN")
    return reasons


Arguments = tuple[Tensor, Tensor | None, Weights, Tensor, Tensor | None, Tensor | None, int]


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    shape: tuple[int, int, int, int] = (4, 96, 128, 32),
    outputs: int = 32,
    taps: int = 3,
    past: bool = True,
    residual: bool = False,
    gamma: bool = False,
    scale: int = 1,
    transposed: bool = False,
) -> Arguments:
    frames, height, width, channels = shape

    def make(*size: int, seed: int) -> Tensor:  # small: a tolerance is of values near 1
        return normal(*size, seed=seed, device=device) / 64

    x = make(*shape, seed=0)
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if transposed else x
    weight = 64 * make(outputs, channels, taps, 3, 3, seed=1) / (9 * taps * channels) ** 0.5
    size = (frames, scale * height, scale * width, outputs)
    return (
        x,
        make(taps - 1, height, width, channels, seed=2) if past else None,
        prepare(weight.cpu()),
        make(outputs, seed=3),
        make(*size, seed=4) if residual else None,
        make(outputs, seed=5) if gamma else None,
        scale,
    )


OP = Op(
    name="winograd_conv3d",
    formula="silu(rms_norm(conv3d([past, x], weight) + bias + residual) * gamma)",
    reference=reference,
    faster=(Implementation("native", lambda: _native, _missing, _native_unsupported),),
    # The sums are taken in another order, and Winograd's are several times as large as the result.
    tolerance={torch.float32: Tolerance(rtol=1.9e-6, atol=1.9e-6)},
    cases=(
        Case("odd sizes", partial(_inputs, shape=(3, 13, 22, 17), outputs=19)),
        Case("one frame", partial(_inputs, shape=(1, 9, 10, 16), past=False)),
        Case("single frames", partial(_inputs, shape=(2, 6, 5, 20), taps=1, past=False)),
        Case("empty", partial(_inputs, shape=(0, 8, 8, 16))),
        Case("narrow", partial(_inputs, shape=(2, 7, 9, 3), outputs=3)),
        Case("residual", partial(_inputs, shape=(2, 9, 6, 40), outputs=72, residual=True)),
        Case("norm and silu", partial(_inputs, shape=(2, 9, 6, 40), outputs=72, gamma=True)),
        Case("twice as large", partial(_inputs, shape=(2, 5, 7, 32), taps=1, past=False, scale=2)),
        Case("non-contiguous", partial(_inputs, shape=(2, 7, 90, 16), transposed=True)),
        Case("production", _inputs),  # the widest level of a small VAE
    ),
)
