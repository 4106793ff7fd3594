"""Prompt embeddings through the `encode_prompt` of a family's own pipeline in diffusers."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...diffusers_folder import as_engine_error, diffusers_class
from ...text.embeds import Embeds, Encode

PARTS = ("text_encoder", "tokenizer", "connectors")  # and those numbered: text_encoder_2
POSITIVE = {"do_classifier_free_guidance": False}  # `encode_prompt` then embeds one prompt


@dataclass(frozen=True)
class Encoding:
    """How a pipeline embeds a prompt.

    Parameters
    ----------
    names : of what its `encode_prompt` returns, in order, as far as it is used.
    options : further arguments of `encode_prompt`.
    finish : what the pipeline makes of these results before they go into the transformer.
    with_vae : whether it cannot be made without asking its VAE.
    """

    names: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[..., Any] | None = None
    with_vae: bool = False

    def run(self, pipeline: Any, text: str, device: torch.device) -> Embeds:
        options = _call_defaults(pipeline) | dict(self.options)
        result = pipeline.encode_prompt(text, device=device, **options)
        tensors = result if isinstance(result, tuple) else (result,)
        if self.finish is not None:
            tensors = self.finish(pipeline, *tensors)
        # What comes after is of a negative prompt, and None.
        named = zip(self.names, tensors, strict=False)
        return {name: tensor for name, tensor in named if tensor is not None}


def encoder_of(
    root: Path, encoding: Encoding, device: torch.device, dtype: torch.dtype
) -> tuple[Encode | None, str]:
    """(encode, identity) for a `PromptSource`; no encoder where the folder has none.

    Only the text parts are loaded, when they are called for, and they are freed afterwards.
    """
    files = sorted(file for part in PARTS for file in root.glob(f"{part}*/*") if file.is_file())
    stamps = [f"{file.relative_to(root)} {_stamp(file)}" for file in files]

    def encode(texts: Sequence[str]) -> list[Embeds]:
        with as_engine_error(root):
            pipeline = text_pipeline(root, encoding.with_vae, device, dtype)
            with torch.inference_mode():
                results = [encoding.run(pipeline, text, device) for text in texts]
        del pipeline
        _free(device)
        return results

    known = (root / "model_index.json").is_file() and (root / "text_encoder").is_dir()
    return (encode if known else None), "\n".join([str(root.resolve()), *encoding.names, *stamps])


def _call_defaults(pipeline: Any) -> dict[str, Any]:
    """What a user's call would hand on to `encode_prompt`, whose own defaults may differ."""
    call = signature(pipeline.__call__).parameters
    return {
        name: call[name].default
        for name in signature(pipeline.encode_prompt).parameters
        if name in call and call[name].default is not None and not name.startswith("negative")
    }


class _Settings(SimpleNamespace):
    """Stands for a part of which only the settings are asked."""


def text_pipeline(root: Path, with_vae: bool, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of model_index.json with its text parts alone."""
    index = json.loads((root / "model_index.json").read_text())
    parts: dict[str, Any] = {}
    for name, entry in index.items():
        if name.startswith(PARTS) and isinstance(entry, list) and entry[1] is not None:
            parts[name] = _load_part(root / name, entry[0], entry[1], device, dtype)
        elif not name.startswith("_"):
            parts[name] = None if isinstance(entry, list) else entry
    if with_vae:
        values = json.loads((root / "vae" / "config.json").read_text())
        parts["vae"] = _Settings(config=_Settings(**values), **values)
    if "safety_checker" in parts:
        parts["safety_checker"] = _Settings()  # it checks what a pipeline is asked to generate
    return diffusers_class(index["_class_name"])(**parts)


def _load_part(
    folder: Path, library: str, class_name: str, device: torch.device, dtype: torch.dtype
) -> Any:
    """A part by its entry in model_index.json: of transformers, or of the pipeline's own folder."""
    place = library if library == "transformers" else f"diffusers.pipelines.{library}"
    load = getattr(import_module(place), class_name).from_pretrained
    if folder.name.startswith("tokenizer"):
        return load(folder, local_files_only=True)
    key = "dtype" if library == "transformers" else "torch_dtype"
    return load(folder, local_files_only=True, **{key: dtype}).to(device).eval()


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
