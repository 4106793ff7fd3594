"""What the CUDA kernels compute, on the processor: their sources, with threads for a GPU's.

The emulator knows just what the kernels use; the contraction of products is off, as it is in the
build for GPUs, so results are compared bit for bit.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.kernels import dtg_step, native

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
CXX = shutil.which(os.environ.get("CXX", "c++"))
DTYPES = native.DTYPE_CODES
PROBE = "#include <barrier>\nint main() { std::barrier<> b(1); b.arrive_and_wait(); }"


def compiles_cxx20() -> bool:
    if not CXX:
        return False
    command = [CXX, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=PROBE, text=True, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not compiles_cxx20(), reason="no compiler of C++20")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("emulated") / "kernels.so"
    sources = [HERE / "emulator" / "entries.cpp", *(CSRC / "cuda").glob("*.cu")]
    command = [CXX, "-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-w"]
    command += ["-I", HERE / "emulator", "-I", CSRC / "include", "-x", "c++", *sources]
    result = subprocess.run([*command, "-o", library], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(library))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtg_step(kernels: ctypes.CDLL, dtype: torch.dtype, offset: int, guided: bool) -> None:
    """At an offset no access is aligned; 2053 values fill a block and leave a tail."""
    num = 2053
    x, v_cond, v_uncond = (normal(num + offset, seed=seed)[offset:] for seed in range(3))
    v_cond = normal(num + offset, seed=1).to(dtype)[offset:]
    v_uncond = normal(num + offset, seed=2).to(dtype)[offset:] if guided else None
    table = normal(4, 3, seed=3)
    for row in (None, torch.tensor(3)):
        out = torch.full((num + 8,), torch.nan)
        kernels.step(
            *map(address, (x, v_cond, v_uncond, table, row, out)),
            *(ctypes.c_int64(num), DTYPES[dtype]),
        )
        index = 0 if row is None else row
        want = dtg_step(x, v_cond, v_uncond, table, index, implementation="reference")
        assert torch.equal(out[:num], want)
        assert out[num:].isnan().all(), "written beyond the end"


class Blend(ctypes.Structure):
    """csrc/include/dtg/cuda/tile_blend.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("num_tiles", "planes")],
        *[(name, ctypes.c_int) for name in ("tile_height", "tile_width", "height", "width")],
    ]


def blended(values: Tensor, origins: Tensor, windows: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    """Added to `out` (planes, H, W), tile by tile, cut off where it ends."""
    height, width = out.shape[-2:]
    for tile, (y, x), rows, columns in zip(values, origins.tolist(), *windows, strict=True):
        weighted = tile.float() * (rows[:, None] * columns)
        top, left = max(0, -y), max(0, -x)
        part = weighted[:, top : max(top, height - y), left : max(left, width - x)]
        out[:, y + top :, x + left :][:, : part.shape[1], : part.shape[2]] += part
    return out


@pytest.mark.parametrize(
    ("num", "planes", "tile", "size"),
    [
        (40, 11, (9, 17), (20, 45)),
        (1, 1, (5, 7), (5, 7)),
        (70, 8, (16, 33), (9, 40)),
        (0, 3, (4, 4), (6, 6)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_blend(
    kernels: ctypes.CDLL,
    dtype: torch.dtype,
    num: int,
    planes: int,
    tile: tuple[int, int],
    size: tuple[int, int],
) -> None:
    values = normal(num, planes, *tile).to(dtype)
    windows = normal(num, tile[0], seed=1), normal(num, tile[1], seed=2)
    generator = torch.Generator().manual_seed(3)
    origins = torch.stack([torch.randint(-4, s, (num,), generator=generator) for s in size], dim=1)
    want = blended(values, origins, windows, torch.zeros(planes, *size))
    out = torch.full_like(want, torch.nan)
    origins = origins.int()
    kernels.blend(
        *map(address, (values, origins, *windows, out)),
        *(ctypes.byref(Blend(num, planes, *tile, *size)), DTYPES[dtype]),
    )
    assert torch.equal(out, want)


class ConvInput(ctypes.Structure):
    """csrc/include/dtg/cuda/causal_conv3d.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("batch", "front", "past_frames", "frames", "height", "width", "channels")
        + ("top", "bottom", "left", "right")
    ]


@pytest.mark.parametrize("past_frames", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3, 4, 6, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_conv3d(
    kernels: ctypes.CDLL, dtype: torch.dtype, channels: int, past_frames: int
) -> None:
    """Every width of a word: 2, 4, 8 and 16 bytes."""
    everything = normal(2, past_frames + 2, 2, 3, channels).to(dtype)
    past, chunk = (part.contiguous() for part in everything.split((past_frames, 2), dim=1))
    before = chunk.new_zeros(2, 2 - past_frames, 2, 3, channels)
    want = F.pad(torch.cat([before, past, chunk], dim=1), (0, 0, 1, 2, 0, 1))
    out = torch.full_like(want, torch.nan)
    shape = ConvInput(2, 2, past_frames, 2, 2, 3, channels, 0, 1, 1, 2)
    kernels.assemble(*map(address, (past, chunk, out)), ctypes.byref(shape), DTYPES[dtype])
    assert torch.equal(out, want)
