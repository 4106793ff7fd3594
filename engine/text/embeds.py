"""Prompt embeddings: named tensors of one prompt, their file of two prompts, their cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..cache import cache_folder
from ..errors import ConfigError, EngineError, InputError
from ..media.atomic import AtomicFile

# What a family's encoder makes of one prompt, such as {"prompt_embeds": (1, L, D)}.
Embeds = dict[str, Tensor]
Encode = Callable[[Sequence[str]], list[Embeds]]
NEGATIVE = "negative_"


def read_embeds(path: str | os.PathLike[str], shapes: Mapping[str, int]) -> tuple[Embeds, Embeds]:
    """The prompt's and the negative prompt's embeddings from a safetensors file, on the CPU.

    The file holds every name of `shapes` twice, plain and with "negative_" before it, each with
    one sample; `shapes` gives the size of the last axis, 0 for any.  EngineError where that does
    not hold.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise EngineError(f"{os.fspath(path)} is no file of prompt embeddings: {error}") from error
    both: list[Embeds] = []
    for prefix in ("", NEGATIVE):
        embeds = {name: found[prefix + name] for name in shapes if prefix + name in found}
        if problem := _misfit(embeds, shapes, prefix):
            raise EngineError(f"{os.fspath(path)} does not fit the model: {problem}")
        both.append(embeds)
    return both[0], both[1]


def write_embeds(
    path: str | os.PathLike[str], prompt: Embeds, negative: Embeds, overwrite: bool = False
) -> None:
    """The file that `read_embeds` takes, atomically; InputError where it cannot be written."""
    _save(Path(path), prompt | {NEGATIVE + name: t for name, t in negative.items()}, overwrite)


class PromptSource:
    """Where a backbone gets its embeddings from: a file, the cache, or a text encoder.

    Parameters
    ----------
    shapes : what the backbone needs, see `read_embeds`.
    encode : loads the text encoder, embeds all prompts, and frees the encoder; None where the
        model comes without one.
    identity : of the encoder, everything that its result depends on; part of the cache's key.
    file : `--prompt-embeds`; it then decides alone.
    """

    def __init__(
        self,
        shapes: Mapping[str, int],
        encode: Encode | None,
        identity: str,
        file: str | None = None,
    ):
        self._shapes, self._encode, self._identity, self._file = shapes, encode, identity, file

    def get(self, prompt: str, negative_prompt: str) -> tuple[Embeds, Embeds]:
        """The embeddings of both prompts, on the CPU.

        EngineError for a file or an encoder of another model, ConfigError where there is neither.
        """
        if self._file is not None:
            return read_embeds(self._file, self._shapes)
        if self._encode is None:
            raise ConfigError(
                "the model comes without its text encoder: its prompts are embedded where that is "
                "(`dtg-restore embed`), and given as a file (--prompt-embeds)"
            )
        texts = list(dict.fromkeys((prompt, negative_prompt)))
        cached = {text: self._cached(text) for text in texts}
        found = {text: embeds for text, embeds in cached.items() if embeds is not None}
        missing = [text for text in texts if text not in found]
        if missing:
            for text, embeds in zip(missing, self._encode(missing), strict=True):
                if problem := _misfit(embeds, self._shapes):
                    raise EngineError(f"the text encoder does not fit the model: {problem}")
                found[text] = {name: tensor.cpu() for name, tensor in embeds.items()}
                self._store(text, found[text])
        return found[prompt], found[negative_prompt]

    def _place(self, text: str) -> Path:
        key = hashlib.sha256("\0".join((self._identity, text)).encode()).hexdigest()
        return cache_folder("prompts") / f"{key}.safetensors"

    def _cached(self, text: str) -> Embeds | None:
        try:
            embeds = load_file(self._place(text))
        except (SafetensorError, OSError, ValueError):
            return None  # absent, or cut off: it is made again
        return None if _misfit(embeds, self._shapes) else embeds

    def _store(self, text: str, embeds: Embeds) -> None:
        place = self._place(text)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _save(place, embeds, overwrite=True)
        except (OSError, InputError):
            return  # a cache that cannot be written is no reason to stop


def to_device(embeds: Embeds, device: torch.device, dtype: torch.dtype) -> Embeds:
    """The same on `device`, floating-point ones in `dtype`."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in embeds.items()
    }


def _misfit(embeds: Embeds, shapes: Mapping[str, int], prefix: str = "") -> str | None:
    """What keeps `embeds` from being those of one prompt; `prefix` is for the message alone."""
    for name, width in shapes.items():
        tensor = embeds.get(name)
        if tensor is None:
            return f"there is no {prefix}{name}"
        shape = tuple(tensor.shape)
        if len(shape) < 2 or shape[0] != 1 or 0 in shape or (width and shape[-1] != width):
            return f"{prefix}{name} has the shape {shape}, not (1, ..., {width or 'any'})"
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return f"{prefix}{name} holds values that are not finite"
    return None


def _save(path: Path, embeds: Embeds, overwrite: bool) -> None:
    # Copies, as the two prompts may share memory, which the format refuses.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in embeds.items()}
    with AtomicFile(path, overwrite).filled() as unfinished:
        try:
            save_file(tensors, unfinished)
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error
