"""`dtg-restore restore`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
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
            help="A video (.mp4 .mov .mkv .webm .avi), or pictures: a folder, or a pattern such as "
            "out/%04d.exr (.png .tif .exr .dpx .jpg).",
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
            metavar="h264|hevc|vp9|av1|prores|prores4444|ffv1",
            help="Codec of a video; ffv1 is lossless. tiny, which is none of a video, is short "
            "for --vae tiny.",
            rich_help_panel=_OUTPUT,
        ),
    ] = VIDEO_CODEC,
    chroma: Annotated[
        str | None,
        typer.Option(
            metavar="420|422|444",
            help="Sampling of the colours of a video, where its codec has a choice.",
            show_default="the codec's own",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Quality of h264, hevc, vp9 and av1: lower is better and larger.",
            show_default="the codec's, visually lossless",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    color_space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Colour space of the pictures of INPUT, such as ACEScg; by a name of "
            "OpenColorIO's standard configuration.",
            show_default="linear for floating point, else sRGB",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    output_color_space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Colour space of the pictures that are written.",
            show_default="that of INPUT",
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
    output: dict[str, Any] = {
        "codec": codec,
        "chroma": chroma,
        "crf": crf,
        "overwrite": overwrite,
    }
    output |= {"color_space": color_space, "output_color_space": output_color_space}
    with make_reporter(progress) as reporter:
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
            _write_report(report, done)
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
    from ..engine.media import open_reader, open_writer, probe, would_replace
    from ..engine.media.atomic import AtomicFile
    from ..engine.sr import sr_facts
    from ..kernels import check_environment

    check_environment()
    if report is not None and any(would_replace(report, path) for path in (source, target)):
        raise ConfigError(f"--report is {report!r}: that is the input or the output")
    output = output.copy()
    color_space = output.pop("color_space")
    stop = frames and frames[1] + 1
    info = probe(source, stop, color_space)
    with open_reader(source, frames[0] if frames else 0, stop, color_space) as reader:
        numbers = reader.first_number, reader.last_number
    scale = 1 if config.sr == "none" else sr_facts(config.sr).scale
    open_writer(
        target,
        width=info.width * scale,
        height=info.height * scale,
        fps=info.fps,
        colour=info.colour,
        bit_depth=info.bit_depth,
        carry_from=source,
        first_number=numbers[0],
        last_number=numbers[1],
        colour_space=output.pop("output_color_space"),
        **output,
    ).abort()
    if report is not None:
        AtomicFile(report, overwrite=True).abort()


def _what_is_left(target: str) -> str:
    from ..engine.media.paths import is_sequence_output

    if is_sequence_output(target):
        return f"the pictures that were finished stay in {target}"
    return f"{target} was not written"


def _write_report(path: str, report: dict[str, Any]) -> None:
    from ..engine.media.atomic import AtomicFile

    file = AtomicFile(Path(path), overwrite=True)
    try:
        file.path.write_text(json.dumps(report, indent=2) + "\n")
    except BaseException:
        file.abort()
        raise
    file.commit()
