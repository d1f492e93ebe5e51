"""Floor 8: TOML in (tomllib) and out (a small writer), with the comments of a configuration's keys."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping

from inrbridge.errors import ConfigError


def parse_toml(text: str, where: str) -> dict:
    """Read a TOML document; `where` names it in the error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Got {where}, which is not TOML: {error}; compare: inrbridge config init") from error


def parse_value(text: str):
    """Read the value of a `--set key=value`: TOML, or else a plain word, so that shells need no nested quotes.

    >>> parse_value("[256, 1024]"), parse_value("1e-3"), parse_value("sobol")
    ([256, 1024], 0.001, 'sobol')
    """
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        document = {}
    return document["value"] if set(document) == {"value"} else text.strip()


def to_toml(config, comments: bool = False) -> str:
    """Write a configuration (a dataclass of values and of sections) as TOML that reads back equal.

    Args:
        comments: put the explanation of each key above it.
    """
    lines, sections = [], []
    for key in dataclasses.fields(config):
        value = getattr(config, key.name)
        if dataclasses.is_dataclass(value):
            sections.append((key.name, value))
        else:
            lines += _entry(key, value, comments)
    for name, section in sections:
        lines += ["", *([f"# {section.__doc__}"] if comments else []), f"[{name}]"]
        for key in dataclasses.fields(section):
            lines += _entry(key, getattr(section, key.name), comments)
    return "\n".join(lines) + "\n"


def _entry(key: dataclasses.Field, value, comments: bool) -> list[str]:
    line = f"{key.name} = {_value(value)}"
    return [f"# {key.metadata['help']}", line] if comments else [line]


def _value(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_bare(str(key))} = {_value(item)}" for key, item in value.items()) + "}"
    raise ConfigError(f"Got {value!r}, expected a string, number, boolean, list or table: TOML holds nothing else.")


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)
