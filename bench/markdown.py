"""Tables in Markdown, and cells of them."""

from __future__ import annotations

from typing import Any


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def or_nothing(row: dict[str, Any], name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""
