"""Weights of foreign models: safetensors in one file or in shards, read tensor by tensor.

Files are mapped, not read: a tensor goes from the disk to its device, cast on the way, before the
next one is looked at.  A model is never held twice.
"""

from __future__ import annotations

import json
import mmap
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .errors import EngineError

Shape = tuple[int, ...]
Rename = Callable[[str], str]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
NAMED = 8  # keys of one kind that an error lists before it counts the rest


@dataclass(frozen=True)
class Shards:
    """The tensors of one model and the files that hold them."""

    source: Path
    files: dict[Path, dict[str, Shape]]

    @property
    def shapes(self) -> dict[str, Shape]:
        return {key: shape for keys in self.files.values() for key, shape in keys.items()}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, mapped from disk, file by file."""
        for path in self.files:
            try:
                yield from _mapped(path)
            except (SafetensorError, OSError, ValueError) as error:
                raise EngineError(f"{path} cannot be read: {error}") from error


def _mapped(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a file as a view of its read-only mapping, to be copied before it is used.

    The library's own torch tensors lie in a writable mapping, which the system refuses for a file
    that is larger than its memory.
    """
    with _open(path) as header, path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        place = 8 + struct.unpack("<Q", mapping[:8])[0]  # the length of the header, the header
        for key in header.offset_keys():
            part = header.get_slice(key)
            dtype, shape = DTYPES[part.get_dtype()], part.get_shape()
            count = prod(shape)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*not writable")
                flat = torch.frombuffer(mapping, dtype=dtype, count=count, offset=place)
            yield key, flat.view(shape)
            place += count * dtype.itemsize
            if hasattr(mapping, "madvise"):  # its pages go, or the file would count as held
                mapping.madvise(mmap.MADV_DONTNEED)


def _open(path: Path) -> Any:
    return safe_open(path, framework="np")  # of the header alone: it maps the file read-only


def open_shards(source: Path) -> Shards:
    """The weights at `source`: a .safetensors file, or a folder that holds one or has an index.

    Only headers are read.  EngineError for a missing, cut or foreign file, a shard that the index
    names and the folder lacks, a key in another shard than the index says.
    """
    if source.suffix == ".safetensors":
        return Shards(source, {source: _header(source)})
    indices = sorted(source.glob("*.safetensors.index.json"))
    if indices:
        return Shards(source, _indexed(indices[0]))
    single = sorted(source.glob("*.safetensors"))
    if len(single) == 1:
        return Shards(source, {single[0]: _header(single[0])})
    if single:
        raise EngineError(
            f"{source} holds {len(single)} .safetensors files and no *.safetensors.index.json that "
            "says how they belong together"
        )
    raise EngineError(f"{source} holds no .safetensors weights")


def _indexed(index: Path) -> dict[Path, dict[str, Shape]]:
    try:
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
        wanted: dict[str, set[str]] = {}
        for key, name in places.items():
            wanted.setdefault(name, set()).add(key)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise EngineError(f"{index} is no index of shards: {error!r}") from error
    files = {}
    for name, keys in sorted(wanted.items()):
        path = index.parent / name
        files[path] = _header(path)
        if absent := sorted(keys - files[path].keys()):
            raise EngineError(f"{path} lacks {_some(absent)}, which {index.name} says it holds")
    return files


def _header(path: Path) -> dict[str, Shape]:
    if not path.is_file():
        raise EngineError(f"no weights at {path}")
    shapes = {}
    try:
        with _open(path) as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                if part.get_dtype() not in DTYPES:
                    raise EngineError(
                        f"{key} in {path} is {part.get_dtype()}: quantised weights are not read, "
                        "take the bf16, fp16 or fp32 ones"
                    )
                shapes[key] = tuple(part.get_shape())
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{path} is cut short or no safetensors file: {error}") from error
    return shapes


def check_keys(
    shards: Shards, module: nn.Module, rename: Rename, reshaped: Mapping[str, Shape] | None = None
) -> None:
    """EngineError that names every missing, unexpected and misshapen key; headers alone are read.

    `rename` gives the module's name of a key on disk; `reshaped` the shapes on disk of those that
    have another one there.
    """
    expected = {key: tuple(t.shape) for key, t in module.state_dict().items()} | dict(
        reshaped or {}
    )
    found = {rename(key): shape for key, shape in shards.shapes.items()}
    refuse_keys(
        shards.source,
        "the model",
        {
            "missing": sorted(expected.keys() - found.keys()),
            "unexpected": sorted(found.keys() - expected.keys()),
            "wrong shape": [
                f"{key} {found[key]} instead of {expected[key]}"
                for key in sorted(expected.keys() & found.keys())
                if found[key] != expected[key]
            ],
        },
    )


def refuse_keys(source: Path, model: str, problems: Mapping[str, Sequence[Any]]) -> None:
    """EngineError that names the keys of every kind of problem, unless there are none."""
    found = [f"{kind} {_some(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise EngineError(f"{source} does not fit {model}: {'; '.join(found)}")


def _some(keys: Sequence[Any]) -> str:
    rest = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(map(str, keys[:NAMED])) + rest


def load_into(
    module: nn.Module,
    shards: Shards,
    rename: Rename,
    place: Callable[[str, Tensor], Any],
) -> None:
    """Give `module`, built on the meta device, its tensors one by one.

    `place` gets the module's name of a tensor and the mapped tensor, and returns what is to stand
    there: a copy on its device and in its dtype.  Call `check_keys` before.
    """
    for key, tensor in shards.tensors():
        name = rename(key)
        owner, _, leaf = name.rpartition(".")
        parent = module.get_submodule(owner)
        placed = place(name, tensor)
        if leaf in parent._buffers:
            parent._buffers[leaf] = placed
        else:
            parent._parameters[leaf] = nn.Parameter(placed, requires_grad=False)
