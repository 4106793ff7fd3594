"""The command line that measurements of restored clips have in common."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any


def clip_parser(doc: str, *, frames: int, size: int) -> argparse.ArgumentParser:
    """Options with these defaults; the first line of `doc` describes the command."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def store(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Any]) -> None:
    """Run, telling rows as they come, and write the result to `--out`."""
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.write_text(json.dumps(run(args), indent=1) + "\n")
