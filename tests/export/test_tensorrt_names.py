"""Every name of TensorRT that the package uses is one that both of its interfaces have.

The sources are read, and where an object of TensorRT is used, its class is followed from how it was
made.  What the bindings of the oldest known version and of 11 offer lies in `tests/data`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dtg_restore.engine.runtimes.tensorrt import bridge
from dtg_restore.export.monitor import make_monitor

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SOURCES = [
    *(ROOT / "engine/runtimes/tensorrt.py", ROOT / "export/tensorrt.py", ROOT / "export/refit.py"),
    *(ROOT / "export/monitor.py", ROOT / "export/timing_cache.py"),
]
# What our functions take, by the names of the parameters, and attributes of `self`.
PARAMETERS = {
    "engine": "ICudaEngine",
    "builder": "Builder",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "cache": "ITimingCache",
    "error": "ParserError",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
MODULE = "tensorrt"  # in place of a class
# What our functions return.
FUNCTIONS = {"library": MODULE, "read_plan": "ICudaEngine", "_config": "IBuilderConfig"}


def load_listing_script() -> Any:
    path = TESTS / "data" / "list_tensorrt.py"
    spec = importlib.util.spec_from_file_location("list_tensorrt", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_listing_script()
LISTINGS = dict(script.read_listing(TESTS / "data" / f"tensorrt_{n}.txt") for n in (10, 11))
OLDEST = LISTINGS[min(LISTINGS, key=lambda version: int(version.split(".")[0]))]


class Use(NamedTuple):
    """`num_arguments` is None where nothing is called."""

    owner: str
    member: str
    num_arguments: int | None
    line: int

    def problem(self, listing: dict[tuple[str, str], list[Any]]) -> str | None:
        name = f"line {self.line}: {self.owner}.{self.member}".rstrip(".")
        found = listing.get((self.owner, self.member))
        if found is None:
            return f"{name} does not exist"
        if self.num_arguments is not None and not any(m.takes(self.num_arguments) for m in found):
            return f"{name} does not take {self.num_arguments} arguments"
        return None


class Reader(ast.NodeVisitor):
    """Collects the uses in one module; `guarded` are those that the code asks for before."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.guarded: set[tuple[str, str]] = set()
        self._classes: dict[str, str] = {}
        self._called: dict[int, int] = {}  # id of what is called, number of arguments

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = self._classes
        names = {argument.arg for argument in node.args.args}
        self._classes = {"trt": MODULE, "tensorrt": MODULE} | before
        self._classes |= {n: c for n, c in PARAMETERS.items() if n in names}
        self.generic_visit(node)
        self._classes = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name) and (owner := self._class_of(node.value)):
            self._classes = self._classes | {node.targets[0].id: owner}

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        target = node.generators[0].target
        if isinstance(target, ast.Name) and target.id in PARAMETERS:
            self._classes = self._classes | {target.id: PARAMETERS[target.id]}
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._called[id(node.func)] = len(node.args) + len(node.keywords)
        if isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            owner, name = node.args
            if (found := self._class_of(owner)) and isinstance(name, ast.Constant):
                self.guarded.add((found, name.value))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._class_of(node.value)
        if owner is None or node.attr == "__version__":
            return
        called = self._called.get(id(node))
        use = (node.attr, "") if owner == MODULE else (owner, node.attr)
        if use[1] or called is not None:
            self.uses.append(Use(*use, called, node.lineno))

    def _class_of(self, node: ast.AST) -> str | None:
        """Of an object, or of what an enumeration's values are; None where it is not TensorRT's."""
        if isinstance(node, ast.Name):
            return self._classes.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return PARAMETERS.get(node.attr)
            is_class = self._class_of(node.value) == MODULE and node.attr != "__version__"
            return node.attr if is_class else None
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Name):
            return FUNCTIONS.get(node.func.id)
        owner = self._class_of(node.func.value) if isinstance(node.func, ast.Attribute) else None
        if owner is None:
            return None
        if owner == MODULE:
            return node.func.attr
        returned = {m.returns for m in OLDEST.get((owner, node.func.attr), [])}
        return returned.pop() if len(returned) == 1 else None


def read(source: str) -> Reader:
    reader = Reader()
    reader.visit(ast.parse(source))
    return reader


def problems(source: str) -> Iterator[str]:
    reader = read(source)
    for use in reader.uses:
        if (use.owner, use.member) in reader.guarded:
            continue
        for version, listing in LISTINGS.items():
            if problem := use.problem(listing):
                yield f"{problem} in {version}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_of_both_interfaces(path: Path) -> None:
    assert list(problems(path.read_text())) == []


def test_all_of_the_package_is_read() -> None:
    """No other module names the library, and no object of it is missed."""
    for folder in ("engine", "export", "kernels", "cli"):
        for path in set((ROOT / folder).rglob("*.py")) - set(SOURCES):
            assert "import tensorrt" not in path.read_text(), path
    seen = {(use.owner, use.member) for path in SOURCES for use in read(path.read_text()).uses}
    for expected in (
        *(("Runtime", ""), ("Runtime", "engine_host_code_allowed"), ("DataType", "name")),
        *(("Runtime", "deserialize_cuda_engine"), ("ICudaEngine", "create_execution_context")),
        *(("ICudaEngine", "weight_streaming_budget_v2"), ("TensorIOMode", "INPUT")),
        *(("IExecutionContext", "execute_async_v3"), ("IExecutionContext", "set_tensor_address")),
        *(("Builder", "build_serialized_network"), ("IBuilderConfig", "progress_monitor")),
        *(("IOptimizationProfile", "set_shape"), ("BuilderFlag", "STRIP_PLAN")),
        *(("OnnxParser", "parse_from_file"), ("OnnxParserRefitter", "refit_from_file")),
        *(("Refitter", "refit_cuda_engine"), ("ITimingCache", "combine")),
        *(("ParserError", "node_operator"), ("ISerializationConfig", "set_flag")),
        *(("ILogger", "INTERNAL_ERROR"), ("SerializationFlag", "INCLUDE_REFIT")),
    ):
        assert expected in seen
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 does not exist in 11"),
        ("config.bulder_optimization_level = 3", "bulder_optimization_level does not exist in 10"),
        ("engine.weight_streaming_budget", "weight_streaming_budget does not exist in 11"),
        ("trt.Runtime()", "Runtime does not take 0 arguments in 10"),
        ("trt.Runtime(1).deserialize_cuda_engine(1).num_bindings", "num_bindings does not exist"),
        ("builder.create_network(1, 2)", "create_network does not take 2 arguments in 10"),
        ("self._context.execute_async_v2(1)", "execute_async_v2 does not exist in 10"),
    ],
)
def test_other_names_are_found(line: str, problem: str) -> None:
    source = f"def call(self, engine, builder, config):\n    {line}\n"
    assert any(problem in found for found in problems(source))


def test_names_may_be_asked_for() -> None:
    line = "if hasattr(trt.BuilderFlag, 'FP16'):\n        config.set_flag(trt.BuilderFlag.FP16)"
    assert not list(problems(f"def call(config):\n    {line}\n"))


def test_the_stand_in_has_no_other_names(tensorrt: Any) -> None:
    for owner, cls in inspect.getmembers(tensorrt, inspect.isclass):
        if owner.startswith("_"):
            continue
        for name in (n for n in dir(cls) if not n.startswith("_") and n not in dir(int)):
            member = getattr(cls, name)
            for version, listing in LISTINGS.items():
                found = listing.get((owner, name))
                assert found, f"{owner}.{name} does not exist in {version}"
                if inspect.isfunction(member):
                    mine = list(inspect.signature(member).parameters)[1:]
                    assert mine in [overload(m) for m in found] or name == "serialize_with_config"


def test_what_the_library_calls_takes_what_it_gives(tensorrt: Any) -> None:
    for owner, mine in (("ILogger", bridge()), ("IProgressMonitor", make_monitor(None))):
        names = [name for name in dir(getattr(tensorrt, owner)) if (owner, name) in OLDEST]
        called = [name for name in names if OLDEST[owner, name][0].parameters is not None]
        assert called
        for name in called:
            taken = list(inspect.signature(getattr(mine, name)).parameters)
            for listing in LISTINGS.values():
                assert taken in [overload(m) for m in listing[owner, name]]


def overload(member: Any) -> list[str]:
    return [name for name, _ in member.parameters or ()]
