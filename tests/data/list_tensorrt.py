"""What TensorRT's Python bindings offer: one line for each class, member and overload, sorted.

Layers of networks are left out, as networks come from ONNX files.

    Builder(logger)                                       how an object is made
    Builder.create_network(flags=) -> INetworkDefinition  a method; with "=" what may be left out
    BuilderFlag.REFIT                                     a property, or a value of an enumeration

`tests/data/tensorrt_*.txt` are the output of this script, for the versions that they name:

    python tests/data/list_tensorrt.py > tests/data/tensorrt_11.txt
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\)(?: -> (.+))?$", re.M)
LINE = re.compile(r"(\w+)(?:\.(\w+))?(\((.*?)\))?(?: -> (\w+))?$")


class Member(NamedTuple):
    """`parameters` is None for a property; each says whether it may be left out."""

    parameters: tuple[tuple[str, bool], ...] | None
    returns: str | None

    def takes(self, num_arguments: int) -> bool:
        if self.parameters is None:
            return False
        needed = sum(not optional for _, optional in self.parameters)
        return needed <= num_arguments <= len(self.parameters)


def read_listing(path: Path) -> tuple[str, dict[tuple[str, str], list[Member]]]:
    """The version, and the overloads of every (class, member); the member "" makes an object."""
    head, *lines = path.read_text().splitlines()
    found: dict[tuple[str, str], list[Member]] = {}
    for line in lines:
        owner, member, call, inside, returns = LINE.match(line).groups()  # type: ignore[union-attr]
        parameters = None
        if call is not None:
            names = inside.split(", ") if inside else []
            parameters = tuple((name.rstrip("="), name.endswith("=")) for name in names)
        found.setdefault((owner, member or ""), []).append(Member(parameters, returns))
    return head.split()[-1], found


def lines_of(trt: Any) -> Iterator[str]:
    owners = [v for n, v in vars(trt).items() if isinstance(v, type) and not n.endswith("Layer")]
    for owner in owners:
        layers = "add_" if owner.__name__ == "INetworkDefinition" else "_"
        for name in ["__init__", *(n for n in dir(owner) if not n.startswith(("_", layers)))]:
            member = getattr(owner, name)
            is_value = hasattr(owner, "__members__") and isinstance(member, owner)
            yield from _lines(owner.__name__, name, "" if is_value else member.__doc__ or "")


def _lines(owner: str, name: str, doc: str) -> Iterator[str]:
    found = [match for match in SIGNATURE.finditer(doc) if match[1] == name]
    found = [match for match in found if match[2] != "*args, **kwargs"]
    full = owner if name == "__init__" else f"{owner}.{name}"
    if name != "__init__" and not found:
        yield full
    for match in found:
        parameters = [part for part in split(match[2]) if part.partition(":")[0] != "self"]
        names = [p.partition(":")[0].strip() + ("=" if "=" in p else "") for p in parameters]
        returns = (match[3] or "").rpartition(".")[2]
        is_class = re.fullmatch(r"[A-Z]\w+", returns) and returns != "None" and name != "__init__"
        yield f"{full}({', '.join(names)})" + (f" -> {returns}" if is_class else "")


def split(parameters: str) -> list[str]:
    """At the commas that lie in no brackets."""
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


if __name__ == "__main__":
    import tensorrt

    lines = [f"# TensorRT {tensorrt.__version__}", *sorted(set(lines_of(tensorrt)))]
    sys.stdout.write("\n".join(lines) + "\n")
