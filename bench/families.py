"""Bytes that a pass of each family of models holds per token, by tracing on the meta device.

    python -m dtg_restore.bench.families --json bench/results/families_memory.json

diffusers builds the transformer in its default configuration, most often a published one, in bf16;
see `bench.wan` for how bytes are counted.  A module that cannot be traced, as it asks for values or
needs more than its default configuration, is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.backbones import FAMILIES
from ..engine.backbones.facts import MINI
from ..engine.backbones.families.base import DiffusersFamily
from ..engine.codecs.base import CodecFacts
from ..engine.diffusers_folder import diffusers_class
from ..engine.text.embeds import PromptSource
from .live_bytes import LiveBytes
from .provenance import provenance
from .wan import fused_attention

META = torch.device("meta")
# Where the transformer takes more channels than the latents have, and texts of a fixed width.
CHANNELS = {"hunyuan-video-1.5": 32, "motif-video": 16, "kandinsky5": 16, "easyanimate": 16}
TEXT_WIDTHS = {"ltx2": 3840}
ROWS = (32, 64)  # of tokens, 32 in a row, 5 frames


@contextmanager
def no_autocast() -> Iterator[None]:
    """torch refuses it on the meta device."""
    real = torch.autocast
    torch.autocast = lambda *_, **__: nullcontext()  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = real  # type: ignore[misc]


def texts(family: DiffusersFamily, config: Any) -> dict[str, Tensor]:
    """The text arguments of two samples."""
    adapter, found = family.adapter, {}
    for name, text in adapter.texts.items():
        width = config[text.width] if text.width else TEXT_WIDTHS.get(adapter.name, 1024)
        length = adapter.context_tokens
        shape = [2, length] if "mask" in name else [2, length, width]
        shape = [2, width] if "pooled" in name else shape
        found[text.argument] = torch.ones(shape, device=META, dtype=torch.bfloat16)
    return found


def trace(family: DiffusersFamily) -> dict[str, Any]:
    adapter = family.adapter
    with META:
        transformer = diffusers_class(adapter.transformer)().to(torch.bfloat16).eval()
    size = adapter.size(transformer.config)
    channels = CHANNELS.get(adapter.name) or transformer.config.in_channels
    facts = replace(MINI, codec=CodecFacts("any", channels, 4, 8, True), **size)
    backbone = family.backbone_class(
        adapter,
        facts,
        transformer.requires_grad_(False),
        PromptSource({}, None, ""),
        META,
        torch.bfloat16,
        nullcontext,
    )
    backbone.load(Path())
    t, h, w = size["patch"]
    peaks, condition = [], ((2, texts(family, transformer.config)),)
    for rows in ROWS:
        x = torch.empty(2, channels, 5 * t, rows * h, 32 * w, device=META)
        with fused_attention(), no_autocast(), LiveBytes() as count:
            backbone.velocity(x, torch.empty(2, device=META), condition)
        peaks.append(count.peak)
    per_token = (peaks[1] - peaks[0]) / (2 * 5 * 32 * (ROWS[1] - ROWS[0]))
    return {
        "width": size["width"],
        "depth": size["depth"],
        "bytes_per_token": round(per_token, 1),
        "live_channels": round(per_token / size["width"] / 2, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # diffusers has much to say of casts
    rows: dict[str, Any] = {}
    for entry in FAMILIES.values():
        family = entry.load()
        if isinstance(family, DiffusersFamily):
            try:
                rows[entry.name] = trace(family)
            except Exception as error:  # of a foreign module on a device without values
                rows[entry.name] = {"reason": " ".join(str(error).split())[:120]}
            print(entry.name, json.dumps(rows[entry.name]), flush=True)
    found = {"provenance": provenance(), "rows": rows}
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
