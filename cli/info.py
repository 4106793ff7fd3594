"""`dtg-restore info`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .options import Debug
from .text import number, size


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List hardware, models, runtimes and kernels, each with the reason where it is missing."""
    from .machine import collect

    facts = collect()
    text = json.dumps(facts, indent=2) if as_json else "\n".join(lines(facts))
    sys.stdout.write(text + "\n")


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """What `machine.collect` found, for a person."""
    hardware = facts["hardware"]
    memory = hardware["memory_bytes"]
    yield "Hardware"
    yield _row("processor", f"{hardware['processor']}, {hardware['threads']} threads used")
    products = hardware["fast_products"]
    yield _row("fast products", ", ".join(products) if products else "of fp32 alone")
    yield _row("memory", size(memory) if memory else "unknown")
    for gpu in hardware["gpus"]:
        yield _row(
            gpu["device"], f"{gpu['name']}, {size(gpu['memory_bytes'])}, sm {gpu['capability']}"
        )
    if hardware["gpu_reason"]:
        yield _row("GPU", f"none: {hardware['gpu_reason']}")
    yield _row("system", hardware["platform"])
    yield "Versions"
    yield from (_row(name, version) for name, version in facts["versions"].items())
    for title, key in (("Backbones", "backbones"), ("Super-resolution", "sr")):
        yield title
        yield from (_row(row["name"], _model(row)) for row in facts[key])
    for title, key in (
        ("Families of backbones, by path or hub id", "families"),
        ("Runtimes", "runtimes"),
        ("Codecs", "codecs"),
        ("Optional packages", "packages"),
    ):
        yield title
        yield from (_row(row["name"], _state(row)) for row in facts[key])
    yield "Kernels"
    native = facts["kernels"]["native"]
    detail = f"{native['simd']}, openmp {native['openmp']}" if native["available"] else ""
    yield _row("native library", _state(native | {"detail": detail}))
    yield _row("native library: cuda", _state(native["cuda"]))
    for op in facts["kernels"]["ops"]:
        for way in op["implementations"]:
            yield _row(f"{op['op']}: {way['name']}", _state(way))
    if facts["kernels"]["environment_error"]:
        yield _row("DTG_KERNELS", facts["kernels"]["environment_error"])


def _row(name: str, text: Any) -> str:
    return f"  {name:30}{text}"


def _model(row: dict[str, Any]) -> str:
    parts = [f"{number(row['parameters']).replace(' ', '')} parameters"]
    if "scale" in row:
        parts.append(f"x{row['scale']}")
    return f"{', '.join(parts)}; {_state(row)}"


def _state(row: dict[str, Any]) -> str:
    if not row["available"]:
        return f"not available: {'; '.join(row['reasons'])}"
    return "available" + (f" ({row['detail']})" if row.get("detail") else "")
