"""`dtg-restore shots`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Debug, Progress, Source
from .progress import Form, Status, make_reporter
from .text import plural


def shots(
    context: typer.Context,
    source: Source,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the list there."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    progress: Progress = "auto",
    debug: Debug = False,
) -> None:
    """Find the cuts of a clip: the number of every shot's first frame, one a line, from 0.

    The list is what `--shots` takes; it may be corrected by hand before, and serves every worker
    that restores a part of the clip.
    """
    with make_reporter(progress, FORM) as reporter:
        from ..engine.media import probe
        from ..engine.media.atomic import AtomicFile, write_text
        from ..engine.shots import find_shots, shots_as_text

        file = AtomicFile(Path(output), overwrite=overwrite) if output is not None else None
        try:
            reporter.begin()
            info = probe(source)
            found = find_shots(source, info, None, reporter, context.obj.requested)
        except BaseException:
            if file is not None:
                file.abort()
            raise
        if file is not None:
            write_text(file, shots_as_text(found))
            reporter.finish({"path": output, "shots": list(found)})
    if file is None:
        sys.stdout.write(shots_as_text(found))


def summary(report: dict[str, Any]) -> list[str]:
    return [f"{report['path']}: {plural(len(report['shots']), 'shot')}"]


FORM = Form("shots", Status, summary)
