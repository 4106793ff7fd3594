"""`dtg-restore restore`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.config import RestoreConfig
from ..engine.errors import ConfigError, EngineError, InputError, Interrupted, InTheWay
from ..engine.heap import keep_freed_memory
from .options import Progress, Source, with_settings
from .progress import make_reporter
from .signals import Stopped
from .text import plural

if TYPE_CHECKING:
    from ..engine.files.job import Job

_OUTPUT = "Output"
VIDEO_CODEC = "h264"
TINY = "tiny"


@with_settings
def restore(
    context: typer.Context,
    source: Source,
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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with what an unfinished run of the same settings has left, or discard it.",
            rich_help_panel=_OUTPUT,
        ),
    ] = True,
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
    with make_reporter(progress) as reporter:
        from ..engine.files.file_run import restore_file
        from ..engine.files.job import Job, frame_range
        from ..engine.media.atomic import AtomicFile, write_text
        from ..engine.restorer import Restorer

        keep_freed_memory()
        output = {"codec": codec, "chroma": chroma, "crf": crf}
        job = Job(
            *(source, target, *frame_range(frames), output),
            color_space=color_space,
            output_color_space=output_color_space,
            overwrite=overwrite,
            resume=resume,
        )
        _check(job, config, report)
        restorer = Restorer.load(config)
        reporter.begin()
        with _what_is_left(job):
            done = restore_file(restorer, job, reporter, context.obj.requested)
        if report is not None:
            write_text(AtomicFile(report, overwrite=True), json.dumps(done, indent=2) + "\n")
        reporter.finish(done)


def _with_tiny_vae(config: RestoreConfig) -> RestoreConfig:
    if config.vae not in ("auto", TINY):
        raise ConfigError(f"vae is {config.vae!r}, and --codec tiny asks for another one")
    return replace(config, vae=TINY)


def _check(job: Job, config: RestoreConfig, report: str | None) -> None:
    """Whatever can be wrong with the files is found before the models are loaded."""
    from ..engine.files.job import check_files
    from ..engine.media import would_replace
    from ..engine.media.atomic import AtomicFile
    from ..engine.shots import given_shots
    from ..kernels import check_environment

    check_environment()
    given_shots(config.shots)
    if report is not None and any(would_replace(report, p) for p in (job.source, job.target)):
        raise ConfigError(f"--report is {report!r}: that is the input or the output")
    check_files(job, config)
    if report is not None:
        AtomicFile(report, overwrite=True).abort()


@contextmanager
def _what_is_left(job: Job) -> Iterator[None]:
    """An error says, too, how to go on from what the run has finished."""
    try:
        yield
    except (Stopped, Interrupted) as stopped:
        left = _how_to_go_on(job) or f"{job.target} was not written"
        raise Interrupted(f"{stopped}: {left}") from None
    except (InputError, EngineError) as error:
        if left := _how_to_go_on(job, isinstance(error, InTheWay)):
            error.args = (f"{error}; {left}",)
        raise


def _how_to_go_on(job: Job, overwrites: bool = False) -> str:
    """Empty where nothing is finished."""
    count = job.finished()
    command = "the same command" if job.resume else "the same command without --no-resume"
    command += " with --overwrite" if overwrites else ""
    return f"{plural(count, 'frame')} finished, {command} goes on from there" if count else ""
