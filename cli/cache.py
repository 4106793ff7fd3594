"""`dtg-restore cache`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.errors import ConfigError
from .options import Debug
from .text import duration, plural, size

if TYPE_CHECKING:
    from ..export.store import Entry

cache = typer.Typer(no_args_is_help=True, help="List and remove bundles that exports have kept.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@cache.command("list")
def list_bundles(as_json: Json = False, debug: Debug = False) -> None:
    """List the bundles in the cache, the last used first."""
    from ..export.store import entries, root

    rows = [describe(entry) for entry in entries()]
    if as_json:
        sys.stdout.write(json.dumps({"folder": str(root()), "bundles": rows}, indent=2) + "\n")
        return
    for row in rows:
        sys.stdout.write(line(row) + "\n")
    total = size(sum(row["bytes"] for row in rows))
    sys.stdout.write(f"{plural(len(rows), 'bundle')}, {total} in {root()}\n")


@cache.command()
def prune(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Beginnings of keys.", show_default=False),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", help="Those that were not used for so long.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    debug: Debug = False,
) -> None:
    """Remove bundles from the cache, and what killed exports have left there.

    Bundles that another process exports stay.
    """
    if sum((bool(keys), older_than is not None, everything)) != 1:
        raise ConfigError("one of KEY, --older-than and --all says what is removed")
    if older_than is not None and not older_than >= 0:
        raise ConfigError(f"--older-than is {older_than:g}: it must be at least 0")
    from ..export import store

    removed, busy = store.prune(keys or (), older_than, everything)
    for entry in busy:
        sys.stdout.write(f"{entry.name} stays: another process works on it\n")
    freed = size(sum(entry.bytes for entry in removed))
    sys.stdout.write(f"removed {plural(len(removed), 'bundle')}, {freed}\n")


def describe(entry: Entry) -> dict[str, Any]:
    """A bundle in the cache as plain data; times in seconds since the epoch."""
    row: dict[str, Any] = {
        "key": entry.name,
        "folder": str(entry.folder),
        "bytes": entry.bytes,
        "created": entry.created,
        "used": entry.used,
        "models": None,
    }
    if entry.manifest is None:
        return row
    models = entry.manifest.models
    names = {name: model["facts"]["name"] for name, model in models.items() if "facts" in model}
    return row | {
        "models": names,
        "runtime": entry.manifest.runtime,
        "device": entry.manifest.device,
        "precision": entry.manifest.precision,
        "buckets": models.get("backbone", {}).get("facts", {}).get("buckets", []),
    }


def line(row: dict[str, Any]) -> str:
    now = time.time()
    ages = f"made {ago(now - row['created'])}, used {ago(now - row['used'])}"
    if row["models"] is None:
        return f"{row['key']}  damaged, {size(row['bytes'])}, {ages}"
    buckets = " ".join(
        f"{b['frames']}x{b['width']}x{b['height']}:{','.join(map(str, b['batches']))}"
        for b in row["buckets"]
    )
    return (
        f"{row['key']}  {' + '.join(row['models'].values())}, {row['runtime']} in "
        f"{row['precision']} on {row['device']}, {buckets + ', ' if buckets else ''}"
        f"{size(row['bytes'])}, {ages}"
    )


def ago(seconds: float) -> str:
    days = int(seconds // 86400)
    return f"{plural(days, 'day')} ago" if days else f"{duration(max(0.0, seconds))} ago"
