"""Floor 9: the table of all laws that a format obeys, by name; the first line of a law's docstring is its wording."""

from collections.abc import Callable

from inrbridge.testing.case import Case
from inrbridge.testing.field_laws import FIELD_LAWS
from inrbridge.testing.file_laws import FILE_LAWS
from inrbridge.testing.plugin_laws import PLUGIN_LAWS

LAWS: dict[str, Callable[[Case], None]] = {law.__name__: law for law in (*PLUGIN_LAWS, *FILE_LAWS, *FIELD_LAWS)}


def wording(name: str) -> str:
    """Return what the law of this name says."""
    return (LAWS[name].__doc__ or "").strip().splitlines()[0]
