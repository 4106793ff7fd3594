from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from dtg_restore.kernels import native


@pytest.fixture
def _reload() -> None:
    """Lets a test see the loader's first call, and the next test too."""
    native._load.cache_clear()
    yield
    native._load.cache_clear()


def fail_with(error: Exception):
    def import_module(name: str, package: str) -> None:
        raise error

    return import_module


@pytest.mark.skipif(not os.environ.get("CI"), reason="only CI promises an installed package")
@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler on this machine")
def test_library_is_built_where_there_is_a_compiler() -> None:
    assert native.missing() == []


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
def test_describe_names_the_instruction_set() -> None:
    described = native.describe()
    assert described["available"]
    assert described["simd"] in {"avx512", "avx2", "baseline"}


@pytest.mark.usefixtures("_reload")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ModuleNotFoundError("No module named '_C'"),
            "install the package with a C\\+\\+ compiler",
        ),
        (ImportError("libgomp.so.1: cannot open"), "does not load: libgomp.so.1"),
    ],
)
def test_absence_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(native, "import_module", fail_with(error))
    monkeypatch.setattr(native, "__file__", str(tmp_path / "kernels" / "native.py"))
    described = native.describe()
    assert not described["available"]
    with pytest.raises(RuntimeError, match=reason):
        native.library()
    assert native.missing() == described["reasons"]


@pytest.mark.usefixtures("_reload")
def test_reason_of_the_failed_build_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_C.txt").write_text("the native library was not built: no compiler\n")
    monkeypatch.setattr(native, "import_module", fail_with(ModuleNotFoundError("_C")))
    monkeypatch.setattr(native, "__file__", str(tmp_path / "kernels" / "native.py"))
    assert native.missing() == ["the native library was not built: no compiler"]


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
def test_binding_checks_what_it_can() -> None:
    step = native.library().dtg_step
    good = dict.fromkeys(["x", "v_cond", "v_uncond", "out", "num", "v_dtype"], 0)
    good |= {"weights": torch.tensor([1.0, 0.0, 1.0]).data_ptr(), "num_threads": 1}
    step(**good)
    for name, value, message in [
        ("num", -1, "num must not be negative, got -1"),
        ("num", 1, "x, v_cond and out must not be null"),
        ("weights", 0, "weights must not be null"),
        ("v_dtype", 3, "v_dtype must be"),
        ("num_threads", 0, "num_threads must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            step(**(good | {name: value}))
