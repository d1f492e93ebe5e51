"""Floor 2: dataclasses whose attributes are options: what was said in them, and their way into JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

from inrbridge.errors import ConfigError, unknown_name

Record = TypeVar("Record")


def changed_options(record: object) -> dict:
    """Return the attributes of a dataclass that differ from their defaults, by name; tuples become lists, as in JSON.

    >>> from inrbridge.domains import Box
    >>> changed_options(Box((0,), (1,)))
    {'low': [0.0], 'high': [1.0]}
    """
    found = {}
    for field in fields(record):
        value = getattr(record, field.name)
        # arrays have no truth of ==, and are given where the default is None
        same = value is None if field.default is None else field.default is not MISSING and value == field.default
        if not same:
            found[field.name] = _listed(value)
    return found


def from_options(kind: type[Record], options: Mapping[str, object] | None) -> Record:
    """Make a dataclass of what `changed_options` gave.

    Raises:
        ConfigError: there is no such option.
    """
    known = {field.name for field in fields(kind)}
    for name in options or {}:
        if name not in known:
            raise unknown_name(f"option of a {kind.__name__.lower()}", name, known, ConfigError)
    return kind(**dict(options or {}))


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
