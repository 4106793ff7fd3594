"""`dtg-restore restore`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from ..engine.config import RestoreConfig
from ..engine.errors import ConfigError, Interrupted
from ..engine.heap import keep_freed_memory
from .options import Progress, with_settings
from .progress import make_reporter
from .signals import Stopped

_OUTPUT = "Output"
VIDEO_CODEC = "h264"
TINY = "tiny"


@with_settings
def restore(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A video, a folder of pictures, or a pattern such as shots/%04d.png.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A video (.mp4 .mov .mkv .webm .avi), or a folder or pattern for PNG pictures.",
            show_default=False,
        ),
    ],
    config: RestoreConfig,
    frames: tuple[int, int] | None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what exists.", rich_help_panel=_OUTPUT),
    ] = False,
    codec: Annotated[
        str,
        typer.Option(
            metavar="h264|hevc|prores|ffv1|av1",
            help="Codec of a video; ffv1 is lossless. tiny, which is none of a video, is short "
            "for --vae tiny.",
            rich_help_panel=_OUTPUT,
        ),
    ] = VIDEO_CODEC,
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Quality of h264, hevc and av1: lower is better and larger.",
            show_default="the codec's, visually lossless",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a JSON file with settings, versions, hashes, times and memory.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    progress: Progress = "auto",
) -> None:
    """Restore a video or a sequence of pictures."""
    if codec == TINY:
        codec, config = VIDEO_CODEC, _with_tiny_vae(config)
    output: dict[str, Any] = {"codec": codec, "crf": crf, "overwrite": overwrite}
    with make_reporter(progress) as reporter:
        from ..engine.media.atomic import write_text
        from ..engine.restorer import Restorer

        keep_freed_memory()
        _check(source, target, config, frames, report, output)
        restorer = Restorer.load(config)
        reporter.begin()
        try:
            done = restorer.restore_file(
                source,
                target,
                frames=frames,
                on_progress=reporter,
                cancel=context.obj.requested,
                **output,
            )
        except (Stopped, Interrupted) as stopped:
            raise Interrupted(f"{stopped}: {_what_is_left(target)}") from None
        if report is not None:
            write_text(report, json.dumps(done, indent=2) + "\n")
        reporter.finish(done)


def _with_tiny_vae(config: RestoreConfig) -> RestoreConfig:
    if config.vae not in ("auto", TINY):
        raise ConfigError(f"vae is {config.vae!r}, and --codec tiny asks for another one")
    return replace(config, vae=TINY)


def _check(
    source: str,
    target: str,
    config: RestoreConfig,
    frames: tuple[int, int] | None,
    report: str | None,
    output: dict[str, Any],
) -> None:
    """Whatever can be wrong with the files is found before the models are loaded."""
    from ..engine.media import open_writer, probe, would_replace
    from ..engine.media.atomic import AtomicFile
    from ..engine.sr import sr_facts
    from ..kernels import check_environment

    check_environment()
    if report is not None and any(would_replace(report, path) for path in (source, target)):
        raise ConfigError(f"--report is {report!r}: that is the input or the output")
    info = probe(source, frames and frames[1] + 1)
    scale = 1 if config.sr == "none" else sr_facts(config.sr).scale
    open_writer(
        target,
        width=info.width * scale,
        height=info.height * scale,
        fps=info.fps,
        colour=info.colour,
        bit_depth=info.bit_depth,
        **output,
    ).abort()
    if report is not None:
        AtomicFile(report, overwrite=True).abort()


def _what_is_left(target: str) -> str:
    from ..engine.media.paths import is_sequence_output

    if is_sequence_output(target):
        return f"the pictures that were finished stay in {target}"
    return f"{target} was not written"
