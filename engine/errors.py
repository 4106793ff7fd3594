"""The errors a caller can meet, each with the exit code that the command line returns for it."""

from __future__ import annotations


class DTGError(Exception):
    """Base of every error raised on purpose.  Anything else that escapes is a bug."""

    exit_code = 1


class ConfigError(DTGError):
    """A setting is unknown, out of range or contradicts another one."""

    exit_code = 2


class InputError(DTGError):
    """The input cannot be read, or the output cannot be written."""

    exit_code = 3


class InTheWay(InputError):
    """What would be written exists already, and may not be replaced."""


class BeyondEnd(InputError):
    """The clip ends before the first frame that was asked for."""


class EngineError(DTGError):
    """Weights, a runtime or a compiled engine is missing, damaged or does not fit."""

    exit_code = 4


class OutOfMemory(DTGError):
    """The device's memory did not suffice.

    Attributes
    ----------
    suggested_tile : (width, height) in pixels that should fit, or None where none is known.
    stage : "refine" or "upscale", or None where it was neither.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        suggested_tile: tuple[int, int] | None = None,
        stage: str | None = None,
    ):
        super().__init__(message)
        self.suggested_tile, self.stage = suggested_tile, stage


class Interrupted(DTGError):
    """The run was cancelled by the caller or by a signal; nothing finished was lost."""

    exit_code = 6
