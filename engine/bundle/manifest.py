"""What a bundle holds and what it needs, as data: the file manifest.json.

Components are named after what they compute:

    condition.E               times and prompts to the tables of a run, for expert E
    velocity.E.BxTxHxW        a pass of expert E over B tiles of T frames of H x W pixels
    encode_first.HxW          the first slice of a clip through the codec's encoder, and ...
    encode_next.HxW           ... each one after it, with what layers remember as inputs and outputs
    decode_first.HxW, decode_next.HxW
    upscale                   a tile of a frame, enlarged
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..runtimes.base import Component, TensorSpec

FORMAT = 1  # of the manifest: another number is not read
MANIFEST = "manifest.json"
DIGEST = "sha256"  # in the file: of all the rest of it
COMPILED = (".onnx", ".pt2", ".plan")


@dataclass(frozen=True)
class FileFacts:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Parameters
    ----------
    key : SHA-256 over everything that can change what the bundle computes.
    runtime : what executes it: "ort", "aot" or "tensorrt"; "onnx" files are executed by any.
    device : "cpu" or "cuda".
    precision : of the networks' arithmetic: "fp32", "bf16", "fp16" or "fp8".
    models : "backbone", "codec" and "sr", those that it has, each as plain data.
    needs : what a machine must have; every entry is compared by `bundle.opened`.
    made_with : versions and machine, to be read by people.
    """

    key: str
    runtime: str
    device: str
    precision: str
    models: dict[str, dict[str, Any]]
    components: dict[str, Component]
    needs: dict[str, Any]
    made_with: dict[str, Any]
    files: dict[str, FileFacts]
    format: int = FORMAT


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def is_unfinished(folder: Path) -> bool:
    """Whether there is a part of a bundle, without the manifest, which is written last."""
    return not is_bundle(folder) and any(file.suffix in COMPILED for file in folder.iterdir())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete or not at all; one that is there is replaced."""
    data = asdict(manifest)
    text = json.dumps(data | {DIGEST: _digest(data)}, indent=1)
    partial = folder / f".{MANIFEST}.{os.getpid()}"
    try:
        partial.write_text(text + "\n")
        os.replace(partial, folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest:
    """EngineError where there is none, or it is damaged or of another format."""
    try:
        data = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EngineError(
            f"{folder} is no bundle: it has no {MANIFEST}, which an export writes last; export it "
            "again"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder / MANIFEST} is damaged: {error}") from error
    try:
        if data["format"] != FORMAT:
            raise EngineError(
                f"{folder} is a bundle of format {data['format']}, and {FORMAT} is read: export it "
                "again"
            )
        if data.pop(DIGEST) != _digest(data):
            raise EngineError(f"{folder / MANIFEST} is damaged: its sum differs; export it again")
        return Manifest(
            **{
                **data,
                "components": {n: _component(c) for n, c in data["components"].items()},
                "files": {n: FileFacts(**f) for n, f in data["files"].items()},
            }
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise EngineError(f"{folder / MANIFEST} is damaged: {error!r}") from error


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _component(data: dict[str, Any]) -> Component:
    specs = {
        side: {name: TensorSpec(tuple(shape), dtype) for name, (shape, dtype) in data[side].items()}
        for side in ("inputs", "outputs")
    }
    return Component(tuple(data["files"]), **specs, onnx_sha256=data["onnx_sha256"])
