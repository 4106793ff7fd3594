"""The settings of a run as options: one table, from which every command takes them.

Types and defaults are those of `RestoreConfig`, so an option cannot differ from its setting.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..engine.config import (
    ATTENTIONS,
    BRANCHES,
    COLOR_MATCHES,
    MODES,
    OFFLOADS,
    SCHEDULES,
    SOLVERS,
    SPACES,
    WEIGHTS,
    RestoreConfig,
)
from ..engine.errors import ConfigError
from .config_file import Config, SaveConfig, file_of, is_given, save_file
from .progress import MODES as MODES_OF_PROGRESS

# Group -> setting -> (what its value looks like, help).
SETTINGS: dict[str, dict[str, tuple[str | None, str]]] = {
    "Models": {
        "backbone": (
            "mini|none|PATH|HUB-ID",
            "Refinement model: mini is embedded, none leaves the refinement out, PATH is a "
            "folder or a .safetensors file, HUB-ID a model OWNER/NAME of the Hugging Face hub.",
        ),
        "vae": (
            "auto|tiny|PATH",
            "Codec of the refinement model's latents: its own, a small one for previews, or "
            "weights by path.",
        ),
        "vae_tile": (
            "WxH",
            "Size in pixels that the codec works on; 0x0 is the whole frame.",
        ),
        "weights": (
            "|".join(WEIGHTS),
            "How the refinement model's matrices are held: in the dtype, or in one byte each; "
            "int8-dynamic computes in 8 bits as well, which is faster on a CPU and less exact.",
        ),
        "prompt_embeds": (
            "FILE",
            "Prompts as `dtg-restore embed` has written them: no text encoder is needed, and "
            "--prompt and --negative-prompt have no effect.",
        ),
        "sr": ("mini-x2|mini-x4|none|PATH", "Super-resolution model that enlarges the result."),
    },
    "Guidance": {
        "guidance": ("|".join(MODES), "Lookahead guidance, classifier-free guidance, or SDEdit."),
        "steps": ("N", "Steps of the solver."),
        "t_start": ("X", "Noise the refinement starts from, 0 to 1: higher repairs more, and "
                    "keeps less of the input."),
        "delta0": ("X", "Lookahead at the start: how much cleaner the unconditional branch sees "
                   "the clip."),
        "alpha0": ("X", "Strength of the guidance at the start; 1 is none."),
        "schedule": ("|".join(SCHEDULES), "How lookahead and strength decline."),
        "kappa": ("X", "Rate of the exponential schedule."),
        "space": ("|".join(SPACES), "What is extrapolated."),
        "alpha_clip": (None, "Keep the strength where guidance adds no noise."),
        "tau_floor": ("X", "The lookahead time stays at or above X times the time, 0 to 1."),
        "elide_tol": ("X", "Leave the unconditional branch out where that changes the guided "
                      "velocity by less than X of its size, 0 to 1; 0 changes nothing."),
        "reuse_tol": ("X", "Take the unconditional branch from earlier steps where that changes "
                      "the guided velocity by an estimated X of its size, 0 to 1; 0 is off."),
        "cache_tol": ("X", "The same for both branches: steps that cost nothing; 0 is off."),
        "prompt": ("TEXT", "Conditioning; for mini a tag: clean, degraded or null."),
        "negative_prompt": ("TEXT", "Conditioning of the other branch."),
        "seed": ("N", "Seed of the noise."),
        "color_match": ("|".join(COLOR_MATCHES), "Give refined frames the coarse colours of the "
                        "input, or mean and deviation of each of its channels."),
        "solver": ("|".join(SOLVERS), "Integration of the flow."),
        "shift": ("X", "Time shift; above 1 more of the steps are made at high noise."),
    },
    "Chunks and tiles": {
        "chunk": ("N", "Frames that are refined together."),
        "overlap": ("N", "Frames that neighbouring chunks share."),
        "full_chunks": (None, "Continue the last chunk of a shot up to the full length, as bundles "
                        "always do; then both give the same frames."),
        "shots": ("auto|none|FILE", "Where chunks begin anew: at the cuts that are found, nowhere, "
                  "or at the frames in FILE, as `dtg-restore shots` writes it."),
        "tile": ("WxH", "Size of a tile in pixels; smaller ones take less memory, 0x0 is the "
                 "whole frame."),
        "tile_overlap": ("N", "Pixels that neighbouring tiles share."),
        "tile_batch": ("N", "Tiles that are computed at once."),
    },
    "Machine": {
        "runtime": ("auto|eager|graph|ort|aot|tensorrt|onnx", "What executes the backbone; graph "
                    "needs a GPU, those behind it a bundle that was made for them."),
        "branches": ("|".join(BRANCHES), "Evaluate both branches in one call or one after the "
                     "other; auto is what was measured once on this machine."),
        "attention": ("|".join(ATTENTIONS), "What computes attention; auto is the best that this "
                      "machine has (see `dtg-restore info`), sage has 8-bit products and reports "
                      "their error."),
        "device": ("auto|cpu|cuda[:N]", "auto is the first GPU, else the CPU."),
        "dtype": ("auto|fp32|bf16|fp16", "Precision of the networks; auto is fp32 on a CPU."),
        "threads": ("N", "Threads of the CPU."),
        "offload": (
            "|".join(OFFLOADS),
            "What of the refinement model waits in the host's memory: block fetches each block "
            "while the one before computes, model leaves the device to the codec.",
        ),
    },
}  # fmt: skip

SIZES = ("tile", "vae_tile")
OWN = "the backbone's own"
UNSET: dict[str, str | bool] = {
    "prompt_embeds": False,
    "threads": "the share of cores that the process has",
}


def _go_offline(wanted: bool) -> bool:
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by everything that could download weights
    return wanted


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_go_offline,
        help="Never use the network.",
        rich_help_panel="Machine",
    ),
]
Bundle = Annotated[
    str | None,
    typer.Option(
        metavar="BUNDLE",
        help="Models that `dtg-restore export` has compiled: short for --backbone BUNDLE, and for "
        "--sr BUNDLE where it has one and --sr is not given.",
        show_default=False,
        rich_help_panel="Models",
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A video, a folder of pictures, or a pattern such as shots/%04d.png.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and what the engine does.")]
Progress = Annotated[
    str,
    typer.Option(
        metavar="|".join(MODES_OF_PROGRESS),
        help="auto is a bar on a terminal and plain lines elsewhere (stderr); json is one object a "
        "line on stdout.",
        rich_help_panel="Output",
    ),
]
Frames = Annotated[
    str | None,
    typer.Option(
        metavar="A-B",
        help="Restore frames A to B alone, counted from 0, both included.",
        show_default="all",
    ),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `config` and `frames` the options that they are made from."""

    @wraps(command)
    def run(
        *,
        context: typer.Context,
        frames: str | None,
        bundle: str | None,
        offline: bool,
        debug: bool,
        config_files: list[str] | None,
        save_config: str | None,
        **values: Any,
    ) -> None:
        settings = {field.name: values.pop(field.name) for field in fields(RestoreConfig)}
        settings |= {name: parse_size(name, settings[name]) for name in SIZES}
        if bundle is not None:
            settings |= _models_of(bundle, context)
        if takes_context:
            values["context"] = context
        config = RestoreConfig(**settings)
        if save_config is not None:
            save_file(save_config, context)
        logging.getLogger("dtg_restore").debug("settings: %s", config)
        command(config=config, frames=parse_frames(frames), **values)

    own = [p for p in _parameters(command) if p.name not in ("context", "config", "frames")]
    takes_context = "context" in signature(command).parameters
    added = [
        Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context),
        _parameter("frames", Frames, None),
        _parameter("bundle", Bundle, None),
        *(_setting(name, group) for group, rows in SETTINGS.items() for name in rows),
        _parameter("offline", Offline, False),
        _parameter("debug", Debug, False),
        _parameter("config_files", Config, None),
        _parameter("save_config", SaveConfig, None),
    ]
    run.__signature__ = signature(command).replace(parameters=own + added)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in own + added}
    return run


def _models_of(bundle: str, context: typer.Context) -> dict[str, str]:
    """The settings that --bundle is short for.

    ConfigError where --backbone is given as well; but the command line wins over a file.
    """
    if is_given(context, "backbone"):
        bundle_is_from_file, backbone_is_from_file = (
            file_of(context, name) is not None for name in ("bundle", "backbone")
        )
        if bundle_is_from_file == backbone_is_from_file:
            raise ConfigError(
                "--bundle and --backbone exclude each other: a bundle has its backbone"
            )
        if bundle_is_from_file:
            return {}
    from ..engine.bundle.settings import opened_with

    models = opened_with(Path(bundle))
    return {
        name: path for name, path in models.items() if name != "sr" or not is_given(context, "sr")
    }


def _parameters(command: Callable[..., None]) -> list[Parameter]:
    hints = get_type_hints(command, include_extras=True)
    found = signature(command).parameters.values()
    return [p.replace(annotation=hints[p.name], kind=Parameter.KEYWORD_ONLY) for p in found]


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _setting(name: str, group: str) -> Parameter:
    field = next(field for field in fields(RestoreConfig) if field.name == name)
    metavar, text = SETTINGS[group][name]
    flag = name.replace("_", "-")
    option = typer.Option(
        f"--{flag}" if metavar else f"--{flag}/--no-{flag}",
        metavar=metavar,
        help=text,
        rich_help_panel=group,
        show_default=_default(field),
    )
    kind = str | None if name in SIZES else get_type_hints(RestoreConfig)[name]
    return _parameter(name, Annotated[kind, option], field.default)


def _default(field: Field[Any]) -> str | bool:
    """What is said of the default: where there is none, the backbone mostly decides."""
    return UNSET.get(field.name, OWN) if field.default is None else True


def parse_size(name: str, text: str | None) -> tuple[int, int] | None:
    """ "96x64" as (width, height); `name` is the setting's."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if not match:
        raise ConfigError(
            f"{name} is {text!r}: WIDTHxHEIGHT is expected, such as 96x96, or 0x0 for all"
        )
    return int(match[1]), int(match[2])


def parse_frames(text: str | None) -> tuple[int, int] | None:
    """ "3-7" as (3, 7), "3" as (3, 3)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12})(?:-(\d{1,12}))?", text.strip())
    if not match:
        raise ConfigError(f"--frames is {text!r}: A-B or A is expected, such as 0-99")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ConfigError(f"--frames is {text!r}: the last frame comes before the first")
    return first, last
