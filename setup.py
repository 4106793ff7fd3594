"""Package map and native build; everything else is in pyproject.toml.

The repository root is the package `dtg_restore`.  The extension `dtg_restore._C` is optional: where
it cannot be built the package still installs, and `_C.txt` beside it keeps the reason, which
`dtg-restore info` shows.  The same holds for its CUDA kernels: they are built where there is an
nvcc (DTG_CUDA=auto, the default), always or as an error (on), or never (off).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE, RECORD = "dtg_restore", "_C.txt"
SUBPACKAGES = ["bench", "cli", "engine", "engine.backbones", "engine.backbones.families"]
SUBPACKAGES += ["engine.bundle", "engine.codecs", "engine.files", "engine.media"]
SUBPACKAGES += [f"engine.media.{name}" for name in ("carried", "decode", "encode", "pictures")]
SUBPACKAGES += ["engine.runtimes", "engine.sr", "engine.text", "export", "kernels"]
SUBPACKAGES += ["kernels.triton"]


FOLDERS = {PACKAGE: "."} | {f"{PACKAGE}.{n}": n.replace(".", "/") for n in SUBPACKAGES}


def version() -> str:
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(), re.M)[1]


def first_error(output: str) -> str:
    """The place in the output of CMake or the compiler that says what went wrong, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if "error" in line.lower()), 0)
    return " ".join(lines[first : first + 3])


class BuildPackage(build_py):
    """Leaves this file out, which lies in the folder of the root package."""

    def run(self) -> None:
        if not self.editable_mode:  # modules deleted since the last build would be shipped
            shutil.rmtree(Path(self.build_lib) / PACKAGE, ignore_errors=True)
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] != (PACKAGE, "setup")]


class BuildNative(build_ext):
    """Drives CMake; a failure is recorded, not raised."""

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        places = [library.parent, ROOT] if self.editable_mode else [library.parent]
        for place in places:
            (place / library.name).unlink(missing_ok=True)
            (place / RECORD).unlink(missing_ok=True)
        try:
            self.build_library(library.parent)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            reason = first_error(getattr(error, "stdout", None) or str(error))
            for place in places:
                (place / RECORD).write_text(f"the native library was not built: {reason}\n")
            self.warn(reason)

    def build_library(self, output: Path) -> None:
        cuda = os.environ.get("DTG_CUDA", "auto").lower()
        try:
            self.run_cmake(output, DTG_CUDA=cuda)
        except subprocess.CalledProcessError as error:
            if cuda != "auto" or "nvcc" not in error.stdout:
                raise
            reason = re.sub(r"[^\w .,:/+=-]", " ", first_error(error.stdout))[:300]
            self.run_cmake(output, DTG_CUDA="off", DTG_CUDA_MISSING=f"built without CUDA: {reason}")

    def run_cmake(self, output: Path, **options: str) -> None:
        import pybind11  # a build requirement; may be absent without build isolation

        build = Path(self.build_temp).resolve()
        settings = {
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": output,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            **options,
        }
        configure = ["cmake", "-S", ROOT, "-B", build, *[f"-D{k}={v}" for k, v in settings.items()]]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        shutil.rmtree(build, ignore_errors=True)  # a cache holds paths of an earlier environment
        for command in (configure, ["cmake", "--build", build, "--config", "Release"]):
            merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            subprocess.run(command, check=True, **merged)


setup(
    version=version(),
    packages=list(FOLDERS),
    package_dir=FOLDERS,
    package_data={f"{PACKAGE}.engine": ["weights/*.safetensors", "weights/*.md"]},
    include_package_data=False,
    ext_modules=[Extension(f"{PACKAGE}._C", sources=[], optional=True)],
    cmdclass={"build_py": BuildPackage, "build_ext": BuildNative},
)
