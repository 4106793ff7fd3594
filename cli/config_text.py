"""Mappings as TOML and YAML, by the suffix of a file's name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..engine.errors import ConfigError


def check_suffix(path: str, option: str) -> None:
    """ConfigError where the name tells no format; `option` is what asked for the file."""
    if not _is_toml(path) and Path(path).suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{option} is {path!r}: a name that ends in .toml or .yaml is expected")


def load(path: str) -> dict[Any, Any]:
    """Keys and values of a file; ConfigError where it cannot be read, or is no mapping."""
    check_suffix(path, "--config")
    read = _read_toml if _is_toml(path) else _read_yaml
    try:
        values = read(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: it is not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"cannot read {path}: it is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no options: lines such as `steps: 8` are expected")
    return values


def _read_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _read_yaml(text: str) -> Any:
    """ValueError for what is no YAML, and for a key that stands twice: PyYAML takes the last."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    raise ValueError(f"{key!r} stands there twice")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def dump(path: str, values: dict[str, Any]) -> str:
    """The text of a file of that name which holds `values`."""
    if _is_toml(path):
        import tomli_w

        return tomli_w.dumps(values)
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""


def _is_toml(path: str) -> bool:
    return Path(path).suffix.lower() == ".toml"
