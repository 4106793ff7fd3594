"""The Triton kernels compiled ahead of time, for GPUs that this machine need not have.

What would make them slow shows without running them: spilled registers, and loads or stores of less
than 128 bits.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.kernels.anneal import ALPHA_ONE
from dtg_restore.kernels.triton import picture_tile, row_tile
from dtg_restore.kernels.yuv import ToRgb, ToYuv

pytestmark = [
    pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed"),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
    ),
]

ARCHITECTURES = (80, 90, 100)
# Multiples of 16 in production.
ALIGNED = ("num", "gate_stride", "scale_stride", "shift_stride", "height", "width", "y_stride")
ALIGNED += ("channel_stride", "row_stride", "x_frame", "x_channel", "x_row", "in_frame")
ALIGNED += ("in_channel", "in_row")
ALIGNED += ("stride", "colour", "tile_size")
MAX_REGISTERS = 64  # two programs of 16 warps, or eight of four, run side by side


@dataclass(frozen=True)
class Launch:
    """A kernel as its host function launches it; `types` are those of what is no constant."""

    op: str
    types: dict[str, str]
    constants: dict[str, Any]
    label: str
    num_warps: int = 4
    kernel: str = ""  # where the op has several
    # Accesses of 128 bits; None for all.  Others are to single values, bytes, or given places.
    wide: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    max_registers: int = MAX_REGISTERS

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


def rows(op: str, dim: int, types: dict[str, str], **constants: Any) -> Launch:
    """Of a kernel over rows of tokens, bfloat16 with a float32 modulation."""
    tile = row_tile(10**6, dim)
    warps = tile.pop("num_warps")
    types = types | {"rows": "i32", "num_tokens": "i32", "eps": "fp32"}
    constants = constants | tile | {"DIM": dim}
    return Launch(op, types, constants, f"{dim} wide", warps)


def annealing() -> Launch:
    """Of a run of 20 steps: a handful of values, at a stride of three."""
    names = ("t_start", "delta0", "alpha0", "kappa", "decay_scale", "tau_floor")
    types = {"t_ptr": "*fp64", "annealed_ptr": "*fp32", "table_ptr": "*fp32", "num": "i32"}
    constants = {"SCHEDULE": 0, "X0_SPACE": True, "ALPHA_CLIP": True, "ALPHA_ONE": ALPHA_ONE}
    constants |= {"PI": math.pi, "BLOCK": 32}
    types |= dict.fromkeys(names, "fp64")
    return Launch("anneal", types, constants, "exponential", wide=0)


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def patches() -> list[Launch]:
    """The block transform as `mini` calls it.

    A thread holds four values of each of six planes and the matrix, and has six loads under way:
    twelve such warps an SM, all that fit, are enough to keep its memory busy.
    """
    phases = integers("phase_t", "phase_y", "phase_x", "total", "colour", "t", "h", "w")
    constants = {"TOKENS": 8, "QUADS": True}
    scaled, weighted = constants | {"AFFINE": True}, constants | {"WEIGHTED": True}
    rows = {"shift_ptr": "*fp32", "scale_ptr": "*fp32"} | integers("shift_stride", "scale_stride")
    encode = {"x_ptr": "*fp32", "out_ptr": "*fp32"} | rows | phases
    decode = {"z_ptr": "*fp32", "other_ptr": "*fp32", "out_ptr": "*fp32"} | phases
    decode |= {"weights_ptr": "*fp32", "stride": "i32"}
    return [
        Launch("patch_encode", encode, scaled, "scaled", max_registers=168),
        Launch("patch_decode", decode, weighted, "weighted", max_registers=168),
    ]


def tiles() -> list[Launch]:
    gather = {"x_ptr": "*fp32", "origins_ptr": "*i32", "out_ptr": "*fp32"}
    gather |= integers("num", "planes", "height", "width", "tile_size", "tile_width", "repeat")
    blend = {"tiles_ptr": "*fp32", "origins_ptr": "*i32", "out_ptr": "*fp32"}
    blend |= {"window_y_ptr": "*fp32", "window_x_ptr": "*fp32"}
    blend |= integers("num", "planes", "height", "vectors", "tile_height", "tile_width")
    blocks = {"VECTOR": 4, "BLOCK_P": 1, "BLOCK_Y": 8, "BLOCK_X": 64}
    return [
        Launch("tile_gather", gather, {"BLOCK_P": 1, "BLOCK": 1024}, "64 wide", wide=16),
        Launch("tile_blend", blend, blocks, "64 wide", wide=1),
    ]


def launches() -> list[Launch]:
    step = {"x_ptr": "*fp32", "v_cond_ptr": "*bf16", "v_uncond_ptr": "*bf16", "out_ptr": "*fp32"}
    step |= {"table_ptr": "*fp32", "row_ptr": "*i64", "num": "i32", "row": "i32"}
    guided = {"HAS_UNCOND": True, "ROW_ON_DEVICE": True, "BLOCK": 1024}
    all_of_them = [Launch("dtg_step", step, guided, "guided", wide=6), annealing()]
    modulation = {"scale_ptr": "*fp32", "shift_ptr": "*fp32"}
    modulation |= {"scale_stride": "i32", "shift_stride": "i32"}
    gate = {"gate_ptr": "*fp32", "gate_stride": "i32"}
    norm = {"x_ptr": "*bf16", "out_ptr": "*bf16"} | modulation
    residual = {"x_ptr": "*bf16", "y_ptr": "*bf16", "sum_ptr": "*bf16", "normed_ptr": "*bf16"}
    rope = {"x_ptr": "*bf16", "weight_ptr": "*bf16", "out_ptr": "*bf16"}
    rope |= {"cos_ptr": "*fp32", "sin_ptr": "*fp32"}
    for dim, heads in ((1536, 12), (5120, 40)):  # Wan 1.3B and 14B
        all_of_them += [
            rows("layernorm_modulate", dim, norm),
            rows(
                "gate_residual_norm",
                dim,
                residual | modulation | gate,
                HAS_GATE=True,
                AFFINE=False,
            ),
            rows("rmsnorm_rope", dim, rope, ROTATED=True, HEADS=heads),
        ]
    norm_silu = {"x_ptr": "*bf16", "gamma_ptr": "*fp32", "out_ptr": "*bf16"}
    assembly = {"past_ptr": "*bf16", "x_ptr": "*bf16", "out_ptr": "*bf16"}
    assembly |= {"before": "i32", "height": "i32", "width": "i32"}
    for dim in (96, 192, 384):  # the levels of the published VAE
        all_of_them += [
            rows("rmsnorm_silu", dim, norm_silu, SILU=True),
            rows("causal_conv3d", dim, assembly, HAS_PAST=True),
        ]
    gelu = {"x_ptr": "*bf16", "bias_ptr": "*bf16", "out_ptr": "*bf16", "num": "i32"}
    for dim in (8960, 13824):
        constants = {"DIM": dim, "BLOCK": 1024}
        all_of_them.append(Launch("gelu_bias", gelu, constants, f"{dim} wide"))
    return all_of_them + pictures() + patches() + tiles()


def pictures() -> list[Launch]:
    """Of the kernels over pixels, whose neighbours and bytes cannot be read 128 bits at once."""
    tile = picture_tile(1080, 1920)
    warps = tile.pop("num_warps")
    size = dict.fromkeys(("height", "width", "chroma_height", "chroma_width"), "i32")
    code = dict.fromkeys(("y_ptr", "cb_ptr", "cr_ptr"), "*u8")
    shifts = {"SHIFT_X": 1, "SHIFT_Y": 1}
    to_rgb = code | size | {"out_ptr": "*fp32"}
    to_rgb |= dict.fromkeys(("y_stride", "cb_stride", "cr_stride"), "i32")
    to_rgb |= dict.fromkeys(ToRgb._fields, "fp32")
    to_yuv = code | size | {"rgb_ptr": "*fp32", "channel_stride": "i32", "row_stride": "i32"}
    to_yuv |= dict.fromkeys(ToYuv._fields, "fp32")
    clip = {"x_ptr": "*fp32", "out_ptr": "*fp32", "height": "i32", "width": "i32"}
    clip |= dict.fromkeys(("x_frame", "x_channel", "x_row"), "i32")
    level = clip | {"in_ptr": "*fp32"} | dict.fromkeys(("in_frame", "in_channel", "in_row"), "i32")
    affine = clip | dict.fromkeys(("center_ptr", "gain_ptr", "shift_ptr"), "*fp32")
    exact = {"enable_fp_fusion": False}
    return [
        Launch("yuv_to_rgb", to_rgb, shifts | tile | {"CENTRED": False}, "4:2:0", warps, wide=3),
        Launch("rgb_to_yuv", to_yuv, shifts | tile, "4:2:0", warps, wide=6, options=exact),
        *(
            Launch(
                "color_match",
                level,
                tile | {"RADIUS": radius, "FIRST": radius == 1, "LAST": radius == 16},
                f"radius {radius}",
                warps,
                kernel="color_match_level",
                wide=wide,
            )
            for radius, wide in ((1, 7), (2, 4), (16, 5))
        ),
        Launch("color_match", affine, tile, "adain", warps, kernel="color_match_affine", wide=2),
    ]


def compiled(launch: Launch, architecture: int) -> bytes:
    """The machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = import_module(f"dtg_restore.kernels.triton.{launch.op}")
    kernel = getattr(module, f"_{launch.kernel or launch.op}_kernel")
    names = kernel.arg_names
    signature = {name: launch.types.get(name, "constexpr") for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") or name in ALIGNED
    }
    source = ASTSource(kernel, signature, launch.constants, aligned)
    target = GPUTarget("cuda", architecture, 32)
    options = {"num_warps": launch.num_warps} | launch.options
    return triton.compile(source, target=target, options=options).asm["cubin"]


def dump(what: str, file: Path) -> str:
    tools = Path(import_module("triton.backends.nvidia").__file__).parent / "bin"
    command = [tools / "cuobjdump", what, file]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("launch", launches() if find_spec("triton") else [], ids=str)
def test_no_spills_and_wide_accesses(
    launch: Launch, architecture: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "kernel.cubin"
    file.write_bytes(compiled(launch, architecture))
    usage = dump("--dump-resource-usage", file)
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    code = dump("-sass", file)
    accesses = re.findall(r"\b(?:LDG|STG)\.\S+", code)
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{launch} sm_{architecture}: {registers} registers, {spills} spills, "
            f"{sum('.128' in a for a in accesses)} of {len(accesses)} accesses of 128 bits\n"
        )
    assert (stack, local, spills) == (0, 0, 0)
    assert registers <= launch.max_registers
    assert accesses
    wide = sum(".128" in access for access in accesses)
    assert wide == (len(accesses) if launch.wide is None else launch.wide)
