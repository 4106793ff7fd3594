"""`dtg-restore embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..engine.config import RestoreConfig
from ..engine.errors import ConfigError
from .options import OWN, SETTINGS, Debug, Offline

_MACHINE = "Machine"


def embed(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of a model with its text encoder, or its HUB-ID.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .safetensors file for --prompt-embeds.",
            show_default=False,
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the result is like.", show_default=OWN),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What it is to be led away from.", show_default=OWN),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    device: Annotated[
        str,
        typer.Option(
            metavar=SETTINGS[_MACHINE]["device"][0],
            help=SETTINGS[_MACHINE]["device"][1],
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar=SETTINGS[_MACHINE]["dtype"][0],
            help=SETTINGS[_MACHINE]["dtype"][1],
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Write a model's prompts as a file, so that machines that restore need no text encoder."""
    config = RestoreConfig(
        backbone=model, prompt=prompt, negative_prompt=negative_prompt, device=device, dtype=dtype
    )
    _check(output, overwrite)
    shapes = _embed(config, Path(output), overwrite)
    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    sys.stdout.write(f"{output}: {told}\n")


def _check(output: str, overwrite: bool) -> None:
    """Whatever can be wrong with the file is found before the text encoder is loaded."""
    if Path(output).suffix != ".safetensors":
        raise ConfigError(f"--output is {output!r}: a name that ends in .safetensors is expected")
    from ..engine.media.atomic import AtomicFile

    AtomicFile(output, overwrite).abort()


def _embed(config: RestoreConfig, path: Path, overwrite: bool) -> dict[str, tuple[int, ...]]:
    """Write the file; names and shapes of what is in it."""
    from ..engine.backbones import locate
    from ..engine.devices import named_out_of_memory, resolve_device
    from ..engine.text.embeds import NEGATIVE, write_embeds

    device = resolve_device(config.device)
    found = locate(config.backbone)
    family = found.load()
    facts = family.facts(found.path)
    with named_out_of_memory():
        positive, negative = family.prompts(found.path, config, device).get(
            facts.prompt if config.prompt is None else config.prompt,
            facts.negative_prompt if config.negative_prompt is None else config.negative_prompt,
        )
    write_embeds(path, positive, negative, overwrite)
    named = positive | {NEGATIVE + name: tensor for name, tensor in negative.items()}
    return {name: tuple(tensor.shape) for name, tensor in named.items()}
