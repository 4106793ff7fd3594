"""The CUDA kernels compiled by nvcc, for GPUs that this machine need not have.

What would make them slow shows without running them: spilled registers, and narrow accesses.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ARCHITECTURES = ("80", "90a")
MAX_REGISTERS = 64  # four blocks of 256 threads run side by side

pytestmark = pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not on the path")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, str]:
    """What ptxas says, by architecture; both run at once, and leave NAME.cubin in folders."""
    runs = {}
    for architecture in ARCHITECTURES:
        place = folder / architecture
        place.mkdir()
        command = ["nvcc", "-cubin", f"-arch=sm_{architecture}", "-std=c++17", "-O3", "-fmad=false"]
        command += ["-I", ROOT / "csrc" / "include", "-Xptxas", "-v", *SOURCES]
        runs[architecture] = subprocess.Popen(
            command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    outputs = {architecture: run.communicate(timeout=300)[0] for architecture, run in runs.items()}
    failed = [outputs[architecture] for architecture, run in runs.items() if run.returncode != 0]
    assert not failed, failed[0]
    return outputs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_spills(
    reports: dict[str, str], architecture: str, capsys: pytest.CaptureFixture
) -> None:
    registers = defaultdict(list)
    # One function: its name, its stack and its spills, its registers.
    for part in reports[architecture].split("Compiling entry function")[1:]:
        name = re.search(r"\d+(\w+?_kernel)", part)[1]
        memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", part)
        assert memory.groups() == ("0", "0", "0"), part
        registers[re.sub(r".*?\d+(?=[a-z]+_kernel)", "", name)].append(
            int(re.search(r"Used (\d+) registers", part)[1])
        )
    with capsys.disabled():
        for name, counts in registers.items():
            sys.stdout.write(f"\n{name} sm_{architecture}: {counts} registers, 0 spills")
    assert {name: len(counts) for name, counts in registers.items()} == {
        "assemble_kernel": 4, "blend_kernel": 3, "step_kernel": 6
    }  # fmt: skip
    assert max(max(counts) for counts in registers.values()) <= MAX_REGISTERS


@pytest.mark.skipif(not find_spec("triton"), reason="cuobjdump comes with triton")
@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wide_accesses(folder: Path, architecture: str) -> None:
    step = code_of(folder / architecture / "dtg_step.cubin")
    assert len(step) == 6
    for name, code in step.items():
        guided = "Lb1E" in name
        halves = 1 if "Float32" in name else 2  # of a pack of velocities, in the fp32 state
        loads, stores = (len(re.findall(rf"\b{a}\.\S*128", code)) for a in ("LDG", "STG"))
        assert loads * halves == stores * (halves + 1 + guided) > 0, name
        assert not re.search(r"\bFFMA\b", code), "contracted: not the bits of the reference"
    (widest,) = (
        code
        for name, code in code_of(folder / architecture / "causal_conv3d.cubin").items()
        if "uint4" in name
    )
    assert re.search(r"\bLDG\.\S*128", widest) and re.search(r"\bSTG\.\S*128", widest)


def code_of(file: Path) -> dict[str, str]:
    """The machine code of every function in `file`."""
    tool = Path(import_module("triton.backends.nvidia").__file__).parent / "bin" / "cuobjdump"
    dumped = subprocess.run([tool, "-sass", file], check=True, capture_output=True, text=True)
    _, *parts = re.split(r"Function : (\S+)", dumped.stdout)
    return dict(zip(parts[::2], parts[1::2], strict=True))
