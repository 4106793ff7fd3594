"""The Triton kernels compiled ahead of time, for GPUs that this machine need not have.

What would make them slow shows without running them: spilled registers, and loads or stores of less
than 128 bits.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.kernels.triton import row_tile

pytestmark = [
    pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed"),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
    ),
]

ARCHITECTURES = (80, 90, 100)
# Multiples of 16 in production.
ALIGNED = ("num", "gate_stride", "scale_stride", "shift_stride", "stride", "colour", "tile_size")
MAX_REGISTERS = 64  # two programs of 16 warps, or eight of four, run side by side


@dataclass(frozen=True)
class Launch:
    """A kernel as its host function launches it; `types` are those of what is no constant."""

    op: str
    types: dict[str, str]
    constants: dict[str, Any]
    label: str
    num_warps: int = 4
    max_registers: int = MAX_REGISTERS
    narrow: int = 0  # loads that may be narrower: of origins, and from places that these give

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


def rows(op: str, dim: int, types: dict[str, str], **constants: Any) -> Launch:
    """Of a kernel over rows of tokens, bfloat16 with a float32 modulation."""
    tile = row_tile(10**6, dim)
    warps = tile.pop("num_warps")
    types = types | {"rows": "i32", "num_tokens": "i32", "eps": "fp32"}
    constants = constants | tile | {"DIM": dim}
    return Launch(op, types, constants, f"{dim} wide", warps)


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def patches() -> list[Launch]:
    """The block transform as `mini` calls it.

    A thread holds four values of each of six planes and the matrix, and has six loads under way:
    twelve such warps an SM, all that fit, are enough to keep its memory busy.
    """
    phases = integers("phase_t", "phase_y", "phase_x", "total", "colour", "t", "h", "w")
    constants = {"TOKENS": 8, "QUADS": True}
    rows = {"shift_ptr": "*fp32", "scale_ptr": "*fp32"} | integers("shift_stride", "scale_stride")
    encode = {"x_ptr": "*fp32", "out_ptr": "*fp32"} | rows | phases
    decode = {"z_ptr": "*fp32", "other_ptr": "*fp32", "out_ptr": "*fp32"} | phases
    decode |= {"weights_ptr": "*fp32", "stride": "i32"}
    return [
        Launch("patch_encode", encode, constants | {"AFFINE": True}, "scaled", 4, 168),
        Launch("patch_decode", decode, constants | {"WEIGHTED": True}, "weighted", 4, 168),
    ]


def tiles() -> list[Launch]:
    gather = {"x_ptr": "*fp32", "origins_ptr": "*i32", "out_ptr": "*fp32"}
    gather |= integers("num", "planes", "height", "width", "tile_size", "tile_width", "repeat")
    blend = {"tiles_ptr": "*fp32", "origins_ptr": "*i32", "out_ptr": "*fp32"}
    blend |= {"window_y_ptr": "*fp32", "window_x_ptr": "*fp32"}
    blend |= integers("num", "planes", "height", "vectors", "tile_height", "tile_width")
    blocks = {"VECTOR": 4, "BLOCK_P": 1, "BLOCK_Y": 8, "BLOCK_X": 64}
    return [
        Launch("tile_gather", gather, {"BLOCK_P": 1, "BLOCK": 1024}, "64 wide", narrow=10),
        Launch("tile_blend", blend, blocks, "64 wide", narrow=32),
    ]


def launches() -> list[Launch]:
    step = {"x_ptr": "*fp32", "v_cond_ptr": "*bf16", "v_uncond_ptr": "*bf16", "out_ptr": "*fp32"}
    step |= {"num": "i32", "w_cond": "fp32", "w_uncond": "fp32", "dt": "fp32"}
    all_of_them = [Launch("dtg_step", step, {"HAS_UNCOND": True, "BLOCK": 1024}, "guided")]
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
    return all_of_them + patches() + tiles()


def compiled(launch: Launch, architecture: int) -> bytes:
    """The machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = import_module(f"dtg_restore.kernels.triton.{launch.op}")
    kernel = getattr(module, f"_{launch.op}_kernel")
    names = kernel.arg_names
    signature = {name: launch.types.get(name, "constexpr") for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") or name in ALIGNED
    }
    source = ASTSource(kernel, signature, launch.constants, aligned)
    target = GPUTarget("cuda", architecture, 32)
    options = {"num_warps": launch.num_warps}
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
    narrow = [access for access in accesses if ".128" not in access]
    assert len(narrow) <= launch.narrow
    assert all(access.startswith("LDG") for access in narrow)
