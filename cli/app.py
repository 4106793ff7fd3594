"""The commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .cache import cache
from .config_file import Command
from .embed import embed
from .export import export
from .info import info
from .inspect import inspect
from .plan import plan
from .restore import restore
from .shots import shots

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or settings, 3 input or output, 4 weights or "
    "engine, 5 out of memory, 6 interrupted.",
)
for command in (restore, plan, shots, export, inspect, embed, info):
    app.command(cls=Command)(command)
app.add_typer(cache, name="cache")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dtg-restore {__version__}")
        raise typer.Exit


@app.callback()
def dtg_restore(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Restore distorted or low-resolution video: lookahead-guided refinement, then
    super-resolution."""
