"""The entry point: exit codes, one line for every error, signals.

Nothing heavy is imported here, so that a signal is answered properly from the first moment on.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..engine.errors import ConfigError, DTGError, Interrupted, OutOfMemory
from .signals import Stop, Stopped

DONE, BUG, USAGE, INTERRUPTED = 0, 1, 2, 6
PROGRAM = "dtg-restore"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a bug, 2 usage or settings, 3 input or output, 4 weights or engine, 5 out of memory,
    6 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with _log_to_stderr(debug), Stop() as stop:
        try:
            code = _run(arguments, stop)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader of our output has seen enough
            _close_stdout()
            return DONE
        except SystemExit as error:  # typer's own answer to that
            if not isinstance(error.__context__, BrokenPipeError):
                raise
            _close_stdout()
            return DONE
        except (Stopped, KeyboardInterrupt, Interrupted) as error:
            _say(str(error) or "interrupted")
            return INTERRUPTED
        except Exception as error:
            if debug:
                traceback.print_exc()
            _say(f"error: {_explain(error)}")
            return _exit_code(error)


def _run(arguments: list[str], stop: Stop) -> int:
    import typer

    from .app import app

    usage_error: Any = typer.BadParameter.__mro__[2]  # ClickException: its module has moved
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=stop)
    except usage_error as error:
        context = getattr(error, "ctx", None)
        if text := error.format_message():  # empty where the help has been shown instead
            path = context.command_path if context else PROGRAM
            _say(f"error: {_one_line(text).rstrip('.')} (see {path} --help)")
        return USAGE
    return code if isinstance(code, int) else DONE


def _exit_code(error: Exception) -> int:
    if isinstance(error, DTGError):
        return error.exit_code
    return USAGE if _is_kernel_choice(error) else BUG


def _is_kernel_choice(error: Exception) -> bool:
    kernels = sys.modules.get("dtg_restore.kernels")  # not to import torch for it
    return kernels is not None and isinstance(error, kernels.KernelChoiceError)


def _explain(error: Exception) -> str:
    text = _one_line(str(error))
    if isinstance(error, OutOfMemory):
        tile = error.suggested_tile
        smaller = f"--tile {tile[0]}x{tile[1]} or " if tile else ""
        return f"{text}; try {smaller}a smaller --chunk"
    if isinstance(error, ConfigError):
        return _name_option(text)
    if isinstance(error, DTGError) or _is_kernel_choice(error):
        return text
    return f"{type(error).__name__}: {text} (this is a bug: --debug shows where)"


def _name_option(text: str) -> str:
    """A message that begins with the name of a setting begins with its option."""
    from dataclasses import fields

    from ..engine.config import RestoreConfig
    from ..export.request import ExportRequest

    name, space, rest = text.partition(" ")
    known = {field.name for kind in (RestoreConfig, ExportRequest) for field in fields(kind)}
    if name in known and rest.startswith("is "):
        name = f"--{name.replace('_', '-')}"
    return name + space + rest


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody listens any more
        print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def _close_stdout() -> None:
    """So that the interpreter's own flush at exit does not fail once more."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _StderrHandler(logging.Handler):
    """Looks stderr up for every record: the progress bar puts its own in place."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr)


@contextmanager
def _log_to_stderr(debug: bool) -> Iterator[None]:
    """Warnings, or with `debug` everything, as lines; Python's own warnings only with `debug`."""
    logger, handler = logging.getLogger("dtg_restore"), _StderrHandler()
    form = (
        "%(asctime)s %(levelname)s %(module)s: %(message)s" if debug else f"{PROGRAM}: %(message)s"
    )
    handler.setFormatter(logging.Formatter(form))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
