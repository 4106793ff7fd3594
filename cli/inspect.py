"""`dtg-restore inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.errors import EngineError
from .options import Debug
from .text import size


def inspect(
    bundle: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show what a bundle holds and needs, whether it is whole and whether this machine fits; exit
    code 4 where one of them is not so."""
    facts = collect(Path(bundle))
    text = json.dumps(facts, indent=2) if as_json else "\n".join(lines(facts))
    sys.stdout.write(text + "\n")
    if facts["damage"] or facts["misfits"]:
        raise typer.Exit(EngineError.exit_code)


def collect(folder: Path) -> dict[str, Any]:
    """The manifest, and what was found in checking it.  EngineError where there is none."""
    from dataclasses import asdict

    from ..engine.bundle.damage import damage
    from ..engine.bundle.machine import misfits
    from ..engine.bundle.manifest import read_manifest

    manifest = read_manifest(folder)
    return {
        "bundle": str(folder),
        **asdict(manifest),
        "bytes": sum(facts.bytes for facts in manifest.files.values()),
        "damage": damage(folder, manifest),
        "misfits": misfits(manifest.needs),
    }


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """What `collect` found, for a person."""
    yield _row("bundle", f"{facts['bundle']}, {size(facts['bytes'])}")
    yield _row("key", facts["key"])
    yield _row("made for", f"{facts['runtime']} on {facts['device']} in {facts['precision']}")
    yield _row("made", _made(facts["made_with"]))
    models = facts["models"]
    if "backbone" in models:
        yield from _backbone(models["backbone"], models.get("codec", {}))
    if "sr" in models:
        model = models["sr"]
        yield _row("sr", f"{model['facts']['name']}, x{model['facts']['scale']}{_origin(model)}")
    for name, component in facts["components"].items():
        total = sum(facts["files"][file]["bytes"] for file in component["files"])
        yield _row("component", f"{name}, {size(total)}")
    for name, value in facts["needs"].items():
        yield _row("needs", f"{name} {', '.join(value) if isinstance(value, list) else value}")
    yield _row("files", "; ".join(facts["damage"]) or "whole: every SHA-256 holds")
    yield _row("this machine", "; ".join(facts["misfits"]) or "fits")


def _row(name: str, text: str) -> str:
    return f"{name:14}{text}"


def _made(made: dict[str, Any]) -> str:
    version = made.get("versions", {}).get("dtg-restore", "?")
    return f"{made.get('time', '?')} by dtg-restore {version}"


def _backbone(model: dict[str, Any], codec: dict[str, Any]) -> Iterator[str]:
    facts = model["facts"]
    yield _row("backbone", f"{facts['name']}{_origin(model)}")
    for bucket in facts["buckets"]:
        batches = ", ".join(map(str, bucket["batches"]))
        yield _row(
            "bucket",
            f"{bucket['frames']} frames of {bucket['width']}x{bucket['height']}, batches of "
            f"{batches}",
        )
    tile = codec.get("tile")
    yield _row(
        "codec", codec.get("kind", "none") + (" in tiles of {}x{}".format(*tile) if tile else "")
    )
    yield _row("prompt", facts["prompt"])
    yield _row("negative", facts["negative_prompt"])


def _origin(model: dict[str, Any]) -> str:
    source = model.get("source")
    return f", from {source['path']} (sha256 {source['sha256'][:12]}...)" if source else ""
