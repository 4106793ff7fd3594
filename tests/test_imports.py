"""Imports point one way, stay relative inside the package, and need no optional library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dtg_restore"
# A folder may import from the folders before it.  The root only holds the version and lazy names.
LAYERS = ["", "kernels", "engine", "export", "cli", "bench"]
OPTIONAL = ["triton", "tensorrt", "flash_attn", "xformers", "onnx", "onnxruntime"]
OPTIONAL += ["diffusers", "transformers", "huggingface_hub", "ftfy"]
OPTIONAL += ["flash_attn_interface", "sageattention"]
# Loaded by the choice of an implementation, never by an import of the package.
BEHIND_A_CHOICE = "dtg_restore.kernels.triton"


@dataclass(frozen=True)
class Import:
    source: str  # dotted name of the module that imports
    target: str  # dotted name that is imported
    line: int
    relative: bool
    type_only: bool

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: imports {self.target}"


def module_files() -> dict[str, Path]:
    """Dotted name to file of every module that the package holds."""
    files = [ROOT / "__init__.py"]
    for layer in LAYERS[1:]:
        files += sorted((ROOT / layer).rglob("*.py"))
    return {dotted(file): file for file in files}


def dotted(file: Path) -> str:
    parts = [PACKAGE, *file.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name: str, file: Path) -> Iterator[Import]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(file.read_text(), str(file))
    type_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, False, id(node) in type_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in node.names:
                target = f"{base}.{alias.name}"
                yield Import(name, target, node.lineno, node.level > 0, id(node) in type_only)


def layer_of(name: str) -> int:
    parts = name.split(".")
    folder = parts[1] if len(parts) > 1 else ""
    return LAYERS.index(folder) if folder in LAYERS else 0


FILES = module_files()


def inside(found: Import) -> Import | None:
    """The import with its target cut down to a module of the package; None outside it."""
    if found.target.split(".")[0] != PACKAGE:
        return None
    target = found.target
    while target not in FILES:
        target = target.rpartition(".")[0]
    return Import(found.source, target, found.line, found.relative, found.type_only)


ALL = [found for name, file in FILES.items() for found in imports_of(name, file)]
INSIDE = [found for found in map(inside, ALL) if found is not None]


def arrows_up(imports: list[Import]) -> list[str]:
    # The root's lazy names are imported for type checkers alone: no arrow.
    arrows = [i for i in imports if not (i.source == PACKAGE and i.type_only)]
    return [str(i) for i in arrows if layer_of(i.target) > layer_of(i.source)]


def cycle(imports: list[Import]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for found in imports:
        if not found.type_only:
            graph.setdefault(found.source, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_arrow_runs_up() -> None:
    assert arrows_up(INSIDE) == []


def test_no_cycle() -> None:
    assert cycle(INSIDE) == []


def test_imports_inside_the_package_are_relative() -> None:
    assert [str(i) for i in INSIDE if not i.relative] == []


def test_checks_see_the_imports() -> None:
    assert len(FILES) > 10
    found = {(i.source, i.target) for i in INSIDE}
    assert (f"{PACKAGE}.kernels.dtg_step", f"{PACKAGE}.kernels.native") in found
    assert (f"{PACKAGE}.engine.registry", f"{PACKAGE}.engine.errors") in found


def test_checks_would_fail() -> None:
    up = Import(f"{PACKAGE}.kernels.native", f"{PACKAGE}.engine.errors", 1, True, False)
    back = Import(f"{PACKAGE}.engine.errors", f"{PACKAGE}.kernels.native", 1, True, False)
    assert arrows_up([up, back]) == [str(up)]
    assert set(cycle([up, back])) == {up.source, up.target}
    assert cycle([back]) == []


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


IMPORT_ALL = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {optional!r} or name == "dtg_restore._C":
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocked())
import dtg_restore
assert "torch" not in sys.modules, "the root package is not lazy"
for name in {modules!r}:
    importlib.import_module(name)
import torch
assert not torch.cuda.is_initialized(), "an import touched CUDA"
from dtg_restore import kernels
from dtg_restore.kernels import native
assert native.missing()
z = kernels.gaussian_noise(0, 0, 1, 2, 3, 4, device="cpu")
assert kernels.dtg_step(z, z, None, torch.tensor([[1.0, 0.0, 0.0]]), 0).equal(z)
"""


def test_imports_and_runs_without_optional_libraries(tmp_path: Path) -> None:
    modules = [name for name in FILES if not name.startswith(BEHIND_A_CHOICE)]
    result = run_python(IMPORT_ALL.format(optional=OPTIONAL, modules=modules), cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_says_where_it_does_not_run(tmp_path: Path) -> None:
    result = run_python("import sys; sys.platform = 'win32'; import dtg_restore", cwd=tmp_path)
    assert result.stderr.splitlines()[-1].startswith("ImportError: dtg_restore runs on Linux and")


@pytest.mark.parametrize("folder", ["", "engine", "kernels"])
def test_import_writes_nothing(folder: str, tmp_path: Path) -> None:
    name = f"{PACKAGE}.{folder}".rstrip(".")
    result = run_python(f"import {name}", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
