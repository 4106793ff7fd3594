"""The single files in which the Wan VAEs were first published: names, sizes and statistics."""

from __future__ import annotations

import re

from ..errors import EngineError
from ..shards import Rename, Shards
from .wan_config import WanVaeConfig

MEAN_22 = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
    *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
    *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
    *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
    *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
STD_22 = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
    *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
    *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
    *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
    *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)

NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^conv1\.", "quant_conv."),
        (r"^conv2\.", "post_quant_conv."),
        (r"^(\w+)\.conv1\.", r"\1.conv_in."),
        (r"\.head\.0\.", ".norm_out."),
        (r"\.head\.2\.", ".conv_out."),
        (r"\.middle\.0\.", ".mid_block.resnets.0."),
        (r"\.middle\.1\.", ".mid_block.attentions.0."),
        (r"\.middle\.2\.", ".mid_block.resnets.1."),
        (r"\.residual\.0\.", ".norm1."),
        (r"\.residual\.2\.", ".conv1."),
        (r"\.residual\.3\.", ".norm2."),
        (r"\.residual\.6\.", ".conv2."),
        (r"\.shortcut\.", ".conv_shortcut."),
    )
)
FLAT = re.compile(r"^(encoder\.downsamples|decoder\.upsamples)\.(\d+)\.")
NESTED = re.compile(r"^(?:encoder\.(down)samples|decoder\.(up)samples)\.(\d+)\.\w+samples\.(\d+)\.")


def original_config(shards: Shards) -> WanVaeConfig:
    """Sizes from the tensors; EngineError where the layout is another one."""
    shapes = shards.shapes
    keys = ("encoder.conv1.weight", "decoder.head.0.gamma", "conv2.weight")
    if not all(shapes.get(key) for key in keys):
        raise EngineError(
            f"{shards.source} has not the layout of Wan2.1_VAE or Wan2.2_VAE: it lacks "
            f"{', '.join(key for key in keys if not shapes.get(key))}"
        )
    channels = shapes["conv2.weight"][0]
    first, last = shapes["encoder.conv1.weight"][0], shapes["decoder.head.0.gamma"][0]
    if any(map(NESTED.match, shapes)):
        return WanVaeConfig(first, last, channels, residual=True, patch=2, mean=MEAN_22, std=STD_22)
    return WanVaeConfig(first, last, channels)


def original_names(config: WanVaeConfig) -> Rename:
    """From the names in such a file to those of the network."""

    def flat(match: re.Match[str]) -> str:
        side, place = match[1], int(match[2])
        if side.startswith("encoder"):
            return f"encoder.down_blocks.{place}."
        level, block = divmod(place, config.blocks + 2)
        part = f"resnets.{block}" if block <= config.blocks else "upsamplers.0"
        return f"decoder.up_blocks.{level}.{part}."

    def nested(match: re.Match[str]) -> str:
        way, level, block = match[1] or match[2], match[3], int(match[4])
        blocks = config.blocks if way == "down" else config.blocks + 1
        part = f"resnets.{block}" if block < blocks else f"{way}sampler"
        return f"{'encoder' if way == 'down' else 'decoder'}.{way}_blocks.{level}.{part}."

    def rename(key: str) -> str:
        for pattern, name in NAMES:
            key = pattern.sub(name, key)
        return NESTED.sub(nested, key) if config.residual else FLAT.sub(flat, key)

    return rename
