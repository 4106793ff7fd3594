"""The wheel holds the package, whole and alone, and works elsewhere, with or without `_C`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ["bench", "cli", "engine", "export", "kernels"]
LEFT_BEHIND = [".git", ".venv", "build", "dist", "out", "*.egg-info", "__pycache__"]
LEFT_BEHIND += ["*.so", "_C.txt"]

pytestmark = pytest.mark.skipif(
    not (find_spec("pybind11") and find_spec("setuptools") and shutil.which("cmake")),
    reason="a wheel is built here without isolation, which needs setuptools, pybind11 and cmake",
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that a build leaves nothing in the checkout, nor finds anything there."""
    copy = tmp_path_factory.mktemp("sources") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_BEHIND), symlinks=True)
    return copy


def build_wheel(sources: Path, out: Path, **environment: str) -> Path:
    command = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    run(sys.executable, *command, out, ".", cwd=sources, **environment)
    (wheel,) = out.glob("dtg_restore-*.whl")
    return wheel


def install(wheel: Path, target: Path) -> None:
    command = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
    ]
    run(sys.executable, *command, target, wheel, cwd=target.parent)


@pytest.fixture(scope="module")
def in_haste(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compiler that does not optimise: whether the library is whole is the question here;
    optimised, it is tested in the checkout."""
    script = tmp_path_factory.mktemp("haste") / "compile"
    script.write_text('#!/bin/sh\nexec "$@" -O0\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def wheel(sources: Path, in_haste: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which(os.environ.get("CXX", "c++")):
        pytest.skip("no C++ compiler on this machine")
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(sources, folder, CMAKE_CXX_COMPILER_LAUNCHER=in_haste, DTG_CUDA="off")


@pytest.fixture(scope="module")
def plain_wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a machine without a compiler builds."""
    return build_wheel(sources, tmp_path_factory.mktemp("plain"), CXX="/nonexistent")


def contents(wheel: Path) -> set[str]:
    """The files of the package, the native library under the short name `_C.so`."""
    names = zipfile.ZipFile(wheel).namelist()
    files = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    return {"dtg_restore/_C.so" if "/_C." in n and "_C.txt" not in n else n for n in files}


@pytest.fixture(scope="module")
def expected(sources: Path) -> set[str]:
    files = [sources / "__init__.py"]
    for folder in SHIPPED:
        files += (sources / folder).rglob("*.py")
    for pattern in ("*.safetensors", "*.md"):
        files += (sources / "engine" / "weights").glob(pattern)
    return {f"dtg_restore/{file.relative_to(sources).as_posix()}" for file in files}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path, expected: set[str]) -> None:
    assert contents(wheel) == expected | {"dtg_restore/_C.so"}


def test_wheel_without_a_compiler_holds_the_reason(plain_wheel: Path, expected: set[str]) -> None:
    assert contents(plain_wheel) == expected | {"dtg_restore/_C.txt"}


def test_source_distribution_holds_all_that_is_compiled(sources: Path, tmp_path: Path) -> None:
    command = ["setup.py", "--quiet", "sdist", "--formats=tar", "--dist-dir", str(tmp_path)]
    run(sys.executable, *command, cwd=sources)
    (archive,) = tmp_path.glob("*.tar")
    with tarfile.open(archive) as files:
        held = {name.partition("/")[2] for name in files.getnames()}
    native = {file.relative_to(sources).as_posix() for file in (sources / "csrc").rglob("*.*")}
    assert {"csrc/host/api.cpp", "csrc/example/CMakeLists.txt", "csrc/include/dtg/dtg.h"} <= native
    assert {"CMakeLists.txt", *native} <= held


def test_rebuild_ships_no_module_that_is_gone(sources: Path, tmp_path: Path) -> None:
    extra = sources / "kernels" / "gone.py"
    extra.touch()
    first = build_wheel(sources, tmp_path / "first", CXX="/nonexistent")
    extra.unlink()
    second = build_wheel(sources, tmp_path / "second", CXX="/nonexistent")
    assert contents(first) - contents(second) == {"dtg_restore/kernels/gone.py"}


# An editable install lends its own `_C` to a package that has none: its finder is taken out.
USE_IT = """
import json, sys
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
from dtg_restore import __file__ as home, __version__, kernels
noise = kernels.gaussian_noise(1, 2, 3, 4, 5, 6, device="cpu")
native = kernels.describe()["native"]
print(json.dumps([home, __version__, noise.flatten()[:8].tolist(), native["reasons"]]))
"""


def use(wheel: Path, tmp_path: Path) -> list:
    target = tmp_path / "site"
    install(wheel, target)
    home, *rest = json.loads(
        run(sys.executable, "-c", USE_IT, cwd=tmp_path, PYTHONPATH=str(target))
    )
    assert Path(home).is_relative_to(target)
    return rest


def test_installed_elsewhere_it_runs(wheel: Path, tmp_path: Path) -> None:
    import dtg_restore

    version, noise, reasons = use(wheel, tmp_path)
    assert version == dtg_restore.__version__
    assert len(noise) == 8
    assert reasons == []


def test_without_the_library_it_runs_and_says_why(plain_wheel: Path, tmp_path: Path) -> None:
    from dtg_restore.kernels import gaussian_noise

    _, noise, reasons = use(plain_wheel, tmp_path)
    assert len(reasons) == 1
    assert "/nonexistent" in reasons[0]
    want = gaussian_noise(1, 2, 3, 4, 5, 6, device="cpu").flatten()[:8].tolist()
    assert noise == pytest.approx(want, rel=2**-22)


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = next(n.split("/")[0] for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = archive.read(f"{info}/METADATA").decode()
    for line in [
        "Requires-Python: <3.14,>=3.10",
        "Requires-Dist: torch<2.14,>=2.8",
        "License-Expression: Apache-2.0",
        *(f"Provides-Extra: {e}" for e in ("trt", "flash", "xformers", "eval", "farm", "dev")),
    ]:
        assert line in metadata.splitlines()
    entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert "dtg-restore = dtg_restore.cli.main:main" in entry_points
