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
ALIGNED = ("num", "gate_stride", "scale_stride", "shift_stride")  # multiples of 16 in production
MAX_REGISTERS = 64  # two programs of 16 warps, or eight of four, run side by side


@dataclass(frozen=True)
class Launch:
    """A kernel as its host function launches it; `types` are those of what is no constant."""

    op: str
    types: dict[str, str]
    constants: dict[str, Any]
    label: str
    num_warps: int = 4

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


def rows(op: str, dim: int, types: dict[str, str], **constants: Any) -> Launch:
    """Of a kernel over rows of tokens, bfloat16 with a float32 modulation."""
    tile = row_tile(10**6, dim)
    warps = tile.pop("num_warps")
    types = types | {"rows": "i32", "num_tokens": "i32", "eps": "fp32"}
    constants = constants | tile | {"DIM": dim}
    return Launch(op, types, constants, f"{dim} wide", warps)


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
    return all_of_them


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
    assert registers <= MAX_REGISTERS
    assert accesses
    assert all(".128" in access for access in accesses)
