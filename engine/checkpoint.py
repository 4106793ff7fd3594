"""Weights on disk: fp16 safetensors that carry their own configuration and model card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import EngineError

EMBEDDED = Path(__file__).parent / "weights"


def weights_file(name: str | os.PathLike) -> Path:
    """Where the weights of a model lie: a path as it is, an embedded model by its name."""
    name = os.fspath(name)
    is_path = name.endswith(".safetensors") or os.path.dirname(name)
    return Path(name) if is_path else EMBEDDED / f"{name}.safetensors"


def load_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file written by `save_checkpoint`.

    Returns the configuration and the state dict, in fp32 on the CPU.  EngineError where the file
    is absent, damaged or carries no configuration.
    """
    with _opened(path) as file:
        config = json.loads((file.metadata() or {})["config"])
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    return config, state


def load_config(path: str | os.PathLike) -> dict[str, Any]:
    """The configuration alone, from the header; errors as `load_checkpoint`."""
    with _opened(path) as file:
        return json.loads((file.metadata() or {})["config"])


def is_ours(path: str | os.PathLike) -> bool:
    """Whether a file, if it can be read at all, is one of `save_checkpoint`; true if it cannot."""
    try:
        with safe_open(path, framework="np") as file:  # which maps a file of any size
            return "config" in (file.metadata() or {})
    except (SafetensorError, ValueError, OSError):
        return True  # the loader says what is wrong with it


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    if not os.path.isfile(path):
        raise EngineError(f"no weights at {os.fspath(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except KeyError as error:
        raise EngineError(f"{path} carries no {error} metadata: not one of our files") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise EngineError(f"{path} is damaged or no safetensors file: {error}") from error


def load_card(path: str | os.PathLike) -> dict[str, Any]:
    """The model card of a file written by `save_checkpoint`: data, steps, held-out numbers."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("card", "{}"))


def save_checkpoint(
    path: str | os.PathLike, state: dict[str, Tensor], config: dict[str, Any], card: dict[str, Any]
) -> None:
    """Write `state` as fp16 safetensors with `config` and `card` as metadata, atomically."""
    path = Path(path)
    half = {
        key: value.detach().to("cpu", torch.float16).contiguous() for key, value in state.items()
    }
    metadata = {"config": json.dumps(config), "card": json.dumps(card)}
    partial = path.with_name(path.name + ".partial")
    save_file(half, partial, metadata=metadata)
    os.replace(partial, path)


def load_state(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `module`; EngineError names every missing, unexpected or misshapen key."""
    own = module.state_dict()
    problems = [f"missing {key}" for key in own.keys() - state.keys()]
    problems += [f"unexpected {key}" for key in state.keys() - own.keys()]
    problems += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if problems:
        raise EngineError(f"{source} does not fit the model: {'; '.join(sorted(problems))}")
    module.load_state_dict(state)
