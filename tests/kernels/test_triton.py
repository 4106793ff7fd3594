"""The Triton kernels, run through Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed")
def test_generic_test_passes_in_the_interpreter() -> None:
    """In a process of its own: the interpreter is chosen where a kernel is first imported."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", HERE / "test_ops.py", "-k", "triton"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d\d passed", result.stdout), result.stdout
