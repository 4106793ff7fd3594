"""Options from files, and into one: `--config` and `--save-config`.

A file holds options as the command line has them, by their names without dashes.  They become
click's defaults, so that the command line wins and there is one place where options are made.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from .. import __version__
from ..engine.errors import ConfigError
from .config_text import check_suffix, dump, load

# What concerns the command line alone.
NEVER = ("config", "save-config", "debug", "help")
_FILES = "dtg_restore.config_file"  # in click's `meta`: parameter -> the file that it is from
# What a value looks like on the command line -> how it may be written as numbers, and said.
FORMS = {
    "WxH": 'a size such as "96x96" or [96, 96]',
    "WxH[,WxH...]": 'sizes such as "96x96,64x64" or [[96, 96], [64, 64]]',
    "N[,N...]": 'whole numbers such as "1,2" or [1, 2]',
    "A-B": 'frames such as "0-99"',
}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def read_files(context: typer.Context, paths: list[str] | None) -> list[str] | None:
    """Take the options that stand in `paths` as defaults; what stands in a later file wins.

    Raises
    ------
    ConfigError : a file cannot be read, has no such format, or holds what is no option, or is of
        another type.  Options of another command that takes files are passed over.
    """
    own = options_of(context.command)
    group: Any = context.find_root().command
    others = [options_of(command) for command in getattr(group, "commands", {}).values()]
    known = {name for options in others if "config" in options for name in options}
    kinds = get_type_hints(context.command.callback)
    values: dict[str, Any] = {}
    for path in paths or ():
        seen: set[str] = set()
        for key, value in load(path).items():
            name = _known(path, key, value, known - {*NEVER}, context)
            if name in seen:
                raise ConfigError(f"{path}: {key} stands there twice")
            seen.add(name)
            if option := own.get(name):
                kind = _kind(kinds[option.name])
                values[option.name] = _checked(f"{path}: {key}", value, kind, option.metavar)
                context.meta.setdefault(_FILES, {})[option.name] = path
    context.default_map = values
    return paths


def save_file(path: str, context: typer.Context) -> None:
    """Write every option that was given, on the command line or in a file: not the defaults.

    InputError where the file cannot be written.
    """
    given = {
        name: context.params[option.name]
        for name, option in options_of(context.command).items()
        if name not in NEVER and is_given(context, option.name)
    }
    for name, value in given.items():
        try:
            str(value).encode()
        except UnicodeError:
            raise ConfigError(f"--{name} is {value!r}: it is not Unicode") from None
    from ..engine.media.atomic import AtomicFile, write_text

    head = f"# Options of `{context.command_path}` {__version__}, for --config.\n"
    write_text(AtomicFile(path, overwrite=True), head + dump(path, given))


def options_of(command: Any) -> dict[str, Any]:
    """Option's name without dashes -> click's parameter."""
    long = ((name, param) for param in command.params for name in param.opts)
    return {name[2:]: param for name, param in long if name.startswith("--")}


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter is from the command line or a file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def file_of(context: typer.Context, name: str) -> str | None:
    """The file that a parameter's value is from; None where it is from none."""
    source = context.get_parameter_source(name)
    is_from_file = source is not None and source.name == "DEFAULT_MAP"
    return context.meta.get(_FILES, {}).get(name) if is_from_file else None


def _check_save(path: str | None) -> str | None:
    if path is not None:
        check_suffix(path, "--save-config")
    return path


Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=read_files,
        help="Take options from a TOML or YAML file, where they have their names without dashes; "
        "may be given several times. What is on the command line wins.",
        show_default=False,
    ),
]
SaveConfig = Annotated[
    str | None,
    typer.Option(
        "--save-config",
        metavar="FILE",
        callback=_check_save,
        help="Write all options that were given as a file for --config (.toml, .yaml), replacing "
        "what exists.",
        show_default=False,
    ),
]


class Command(TyperCommand):
    """A command whose complaints about a setting name the file that it is from."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            name = str(error).partition(" is ")[0].removeprefix("--").replace("-", "_")
            if path := file_of(ctx, name):
                raise ConfigError(f"{path}: {str(error).removeprefix('--')}") from error
            raise


def _known(path: str, key: Any, value: Any, known: set[str], context: typer.Context) -> str:
    """The name of the option that `key` means."""
    name = str(key).replace("_", "-")
    if name in NEVER:
        raise ConfigError(f"{path}: {key} belongs on the command line, not in a file")
    if isinstance(value, dict):
        raise ConfigError(f"{path}: {key} is a table: options stand side by side, without tables")
    if name in known:
        return name
    near = get_close_matches(name, sorted(known), 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"see {context.command_path} --help"
    raise ConfigError(f"{path}: there is no option {str(key)!r}: {hint}")


def _kind(hint: Any) -> type:
    """The type of an option's value, which may be missing."""
    return next(kind for kind in KINDS if kind in (hint, *get_args(hint)))


def _checked(said: str, value: Any, kind: type, metavar: str | None) -> Any:
    """The value as the command line would have it: numbers of a size or list become text."""
    form = FORMS.get(metavar or "")
    if metavar and form and (text := _joined(value, metavar)) is not None:
        return text
    if kind is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        return float(value)  # PyYAML takes 1e-3 for a text
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise ConfigError(f"{said} is {value!r}: {form or KINDS[kind]} is expected")


def _joined(value: Any, metavar: str) -> str | None:
    """Numbers as the text of an option that looks like `metavar`; None for others."""
    if metavar == "WxH":
        if value == 0 and type(value) is int:
            return "0x0"  # which both formats take for a number
        is_size = isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))
        return f"{value[0]}x{value[1]}" if is_size else None
    if _is_whole(value) and metavar in ("N[,N...]", "A-B"):
        return str(value)
    if not isinstance(value, list) or not value or metavar == "A-B":
        return None
    if metavar == "N[,N...]":
        return ",".join(map(str, value)) if all(map(_is_whole, value)) else None
    sizes = [size if isinstance(size, str) else _joined(size, "WxH") for size in value]
    return ",".join(size for size in sizes if size) if all(sizes) else None


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0
