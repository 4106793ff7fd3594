"""Folders that diffusers has written: one module each, config.json and safetensors beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch

from .errors import DTGError, EngineError
from .shards import open_shards, refuse_keys


@cache
def diffusers_class(name: str) -> Any:
    """A class of diffusers by name; EngineError where diffusers or the class is not there."""
    try:
        import accelerate  # noqa: F401  diffusers needs it for low_cpu_mem_usage
        import diffusers
    except ImportError as error:
        raise EngineError(
            f"{name} runs through diffusers: pip install 'dtg-restore[families]'"
        ) from error
    found = getattr(diffusers, name, None)
    if found is None:
        raise EngineError(f"diffusers {diffusers.__version__} has no {name}: a newer one is needed")
    return found


def read_config(folder: Path, *classes: str) -> dict[str, Any]:
    """config.json of a module; EngineError where it is absent or names none of `classes`."""
    file = folder / "config.json"
    with as_engine_error(folder):
        config: dict[str, Any] = json.loads(file.read_text())
    found = config.get("_class_name")
    if found not in classes:
        raise EngineError(f"{file} is of the class {found!r}, not {' or '.join(classes)}")
    return config


def count_parameters(folder: Path) -> int:
    """Of a module, from the headers of its shards."""
    return sum(map(prod, open_shards(folder).shapes.values()))


def load_module(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The module of class `name` with the weights of `folder`, for inference.

    diffusers leaves missing weights random and drops unexpected ones: here both are an EngineError
    that names them, as is whatever else keeps the module from being loaded.
    """
    with as_engine_error(folder):
        open_shards(folder)  # its errors are clearer than those of diffusers
        module, report = diffusers_class(name).from_pretrained(
            str(folder),
            torch_dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            low_cpu_mem_usage=True,  # one copy; and what is to stay in fp32 is kept in it
        )
        check_report(folder, name, report)
        return module.to(device).eval().requires_grad_(False)


def check_report(folder: Path, name: str, report: Mapping[str, Iterable[Any]]) -> None:
    """EngineError where diffusers or transformers found other keys than the class `name` has.

    `report` is their loading info.
    """
    kinds = ("missing", "unexpected", "mismatched")
    refuse_keys(folder, name, {kind: sorted(map(str, report[f"{kind}_keys"])) for kind in kinds})


@contextmanager
def as_engine_error(folder: Path) -> Iterator[None]:
    """Whatever a library raises about `folder` becomes one EngineError line that names it."""
    try:
        yield
    except (DTGError, MemoryError, torch.OutOfMemoryError):
        raise
    except NameError as error:  # diffusers leaves out the import of an optional package
        raise EngineError(
            f"{folder} cannot be read: {error.name} is not installed: pip install "
            "'dtg-restore[families]'"
        ) from error
    except Exception as error:  # of diffusers, transformers, safetensors or json: many classes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EngineError(f"{folder} cannot be read: {reason[:300]}") from error
